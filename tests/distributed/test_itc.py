"""The contrastive loss on 1, 2 and 4 ranks equals ten lines on one process, in value and in every gradient."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.helpers import run_ranks

NUM_SAMPLES, WIDTH, TEMPERATURE = 16, 8, 0.2
WITHOUT_PAIR = (3, 9)


def features() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    image, text = (torch.randn(NUM_SAMPLES, WIDTH, generator=generator) for _ in range(2))
    return image.requires_grad_(), text.requires_grad_(), torch.tensor([TEMPERATURE], requires_grad=True)


def reference() -> list[torch.Tensor]:
    """Radford et al. 2021, figure 3, over the samples that are pairs."""
    image, text, temperature = features()
    pairs = [sample for sample in range(NUM_SAMPLES) if sample not in WITHOUT_PAIR]
    logits = F.normalize(image[pairs], dim=-1) @ F.normalize(text[pairs], dim=-1).t() / temperature
    own = torch.arange(len(pairs))
    loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.t(), own)) / 2
    loss.backward()
    return [loss.detach(), image.grad, text.grad, temperature.grad]


def loss_on_a_rank() -> list[Any]:
    import torch.distributed as dist

    from mmtrain.objectives.contract import Totals
    from mmtrain.objectives.itc import MicroBatchContrast
    from mmtrain.parallel.groups import start, stop
    from mmtrain.parallel.launch import read_launch
    from tests.helpers import made_batch

    groups = start(read_launch(), tp=1, pp=1, on_gpu=False)
    num_own = NUM_SAMPLES // groups.grid.dp
    own = slice(groups.rank * num_own, (groups.rank + 1) * num_own)
    image, text, temperature = features()
    batch = made_batch(range(num_own))
    has_pair = torch.tensor([sample not in WITHOUT_PAIR for sample in range(NUM_SAMPLES)])[own]
    batch = batch.__class__(**{**vars(batch), "has_image_B": has_pair, "has_text_B": torch.ones_like(has_pair)})
    found = {
        "image_BE": F.normalize(image[own], dim=-1),
        "text_BE": F.normalize(text[own], dim=-1),
        "temperature": temperature,
    }
    totals = Totals(pairs=NUM_SAMPLES - len(WITHOUT_PAIR), matches=0, masked_tokens=0, next_tokens=0)
    loss = MicroBatchContrast(groups.data).loss(found, batch, totals)
    loss.backward()
    sums = [loss.detach(), image.grad, text.grad, temperature.grad]
    for part in sums:
        dist.all_reduce(part, group=groups.data)
    stop()
    return [part.tolist() for part in sums]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_loss_and_every_gradient_equal_one_process(world_size: int) -> None:
    wanted = reference()
    for got in run_ranks(world_size, loss_on_a_rank):
        for part, expected in zip(got, wanted, strict=True):
            torch.testing.assert_close(torch.tensor(part).reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)
