"""Twins with weights large enough that what they see shows in what they say, and pictures for them."""

from typing import Any

import torch

from mmtrain.hf.configuration import VLBertConfig
from tests.helpers import tiny_plan

VOCAB_SIZE = 128


def config_of(**model: Any) -> VLBertConfig:
    plan = tiny_plan(model={"init_std": 0.3, "max_text_length": 16, **model})
    return VLBertConfig.of(plan.model, plan.itc, vocab_size=VOCAB_SIZE, num_pieces=100)


def built(model_class: type, seed: int = 0, **more: Any) -> Any:
    """A model of `model_class`; the same for the same seed. `more` are knobs of the shape."""
    torch.manual_seed(seed)
    return model_class(config_of(**more)).eval()


def pixels(count: int, seed: int = 1) -> torch.Tensor:
    """Normalized pixels of pictures that all differ."""
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def texts(count: int, length: int = 8, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of texts of several lengths, and what of them is known."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 100, (count, length), generator=generator)
    known = torch.arange(length) < torch.randint(3, length + 1, (count,), generator=generator)[:, None]
    ids[:, 0] = 2
    return ids.masked_fill(~known, 0), known.long()
