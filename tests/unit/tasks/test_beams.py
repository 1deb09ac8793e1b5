"""Beam search finds what transformers' finds, on the twin's own logits."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from mmtrain.config.schema import TaskConfig
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.tasks.beams import BeamSearch

NUM_PIECES, NUM_IMAGES, MAX_LENGTH = 40, 6, 14
WAYS = {
    "greedy": {},
    "two beams": {"num_beams": 2},
    "four beams": {"num_beams": 4},
    "short ones wanted": {"num_beams": 3, "length_penalty": -1.0},
    "long ones wanted": {"num_beams": 3, "length_penalty": 3.0},
    "nothing twice": {"num_beams": 3, "no_repeat_ngram": 2},
    "greedy, nothing twice": {"no_repeat_ngram": 1},
    "few tokens": {"num_beams": 3, "max_new_tokens": 4},
}


@dataclass(frozen=True)
class Seen:
    """A twin with large random weights, and some images."""

    twin: Any
    pixels: torch.Tensor


@pytest.fixture(scope="module")
def seen() -> Seen:
    from mmtrain.config.schema import ItcConfig
    from mmtrain.hf import VLBertConfig, VLBertForImageCaptioning
    from mmtrain.hf.generating import generation_config_of
    from tests.helpers import tiny_plan

    plan = tiny_plan(model={"max_text_length": MAX_LENGTH})
    torch.manual_seed(5)
    config = VLBertConfig.of(plan.model, ItcConfig(), vocab_size=128, num_pieces=NUM_PIECES)
    twin = VLBertForImageCaptioning(config).eval()
    for param in twin.parameters():
        if param.dim() > 1:
            torch.nn.init.normal_(param, std=0.35)
    with torch.no_grad():
        twin.token.vocabulary.bias[Tokenizer.sep_id] = 1.5  # so that some texts end and others do not
    twin.generation_config = generation_config_of(config, range(5))
    return Seen(twin, torch.randn(NUM_IMAGES, 3, plan.model.image_size, plan.model.image_size))


@torch.no_grad()
def written(seen: Seen, how: TaskConfig, prompt: list[int]) -> list[tuple[int, ...]]:
    search = BeamSearch(how, [prompt] * NUM_IMAGES, MAX_LENGTH, NUM_PIECES)
    pixels = seen.pixels.repeat_interleave(how.num_beams, dim=0)
    while search.is_open:
        rows = search.beginnings
        logits = [
            seen.twin(torch.tensor([row]), image[None]).logits[0, -1] for row, image in zip(rows, pixels, strict=True)
        ]
        search.advance(torch.stack(logits))
    return [text.best for text in search.texts]


def by_transformers(seen: Seen, how: TaskConfig, prompt: list[int]) -> list[tuple[int, ...]]:
    found = seen.twin.generate(
        pixel_values=seen.pixels,
        input_ids=torch.tensor([prompt] * NUM_IMAGES),
        num_beams=how.num_beams,
        do_sample=False,
        no_repeat_ngram_size=how.no_repeat_ngram,
        **({"length_penalty": how.length_penalty, "early_stopping": False} if how.num_beams > 1 else {}),
        **({"max_new_tokens": how.max_new_tokens} if how.max_new_tokens else {"max_length": MAX_LENGTH}),
    )
    ends = (Tokenizer.sep_id, Tokenizer.pad_id)
    return [tuple(token for token in row[len(prompt) :] if token not in ends) for row in found.tolist()]


@pytest.mark.parametrize("prompt", [[Tokenizer.cls_id], [Tokenizer.cls_id, 9, 17]], ids=["from nothing", "from words"])
@pytest.mark.parametrize("way", WAYS)
def test_a_search_finds_the_tokens_of_transformers(seen: Seen, way: str, prompt: list[int]) -> None:
    how = TaskConfig(**WAYS[way])
    found = written(seen, how, prompt)
    assert found == by_transformers(seen, how, prompt)


def test_the_texts_of_this_test_end_early_and_late(seen: Seen) -> None:
    lengths = {len(tokens) for tokens in written(seen, TaskConfig(num_beams=2), [Tokenizer.cls_id])}
    assert len(lengths) > 1 and max(lengths) > 2


def test_prompts_of_several_lengths_do_not_disturb_each_other(seen: Seen) -> None:
    how = TaskConfig(num_beams=2)
    prompts = [[Tokenizer.cls_id], [Tokenizer.cls_id, 7, 8, 9]]
    table = torch.randn(NUM_PIECES, NUM_PIECES, generator=torch.Generator().manual_seed(2)) * 2

    def of_all(prompts: list[list[int]]) -> list[tuple[int, ...]]:
        search = BeamSearch(how, prompts, MAX_LENGTH, NUM_PIECES)
        while search.is_open:
            search.advance(torch.stack([table[row[-1]] for row in search.beginnings]))
        return [text.best for text in search.texts]

    assert of_all(prompts) == [*of_all(prompts[:1]), *of_all(prompts[1:])]
