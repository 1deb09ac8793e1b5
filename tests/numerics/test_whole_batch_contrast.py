"""The contrastive loss by blocks of queries, and its gradient by hand, against autograd of the whole N x N matrix."""

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

from mmtrain.objectives.itc import whole_batch_contrast

if TYPE_CHECKING:
    from mmtrain.engine.build import Place

NUM_SAMPLES, WIDTH, TEMPERATURE = 37, 8, 0.07


@pytest.fixture
def group(place: "Place") -> Any:
    """One rank's data-parallel group."""
    return place.groups.data


def features() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unit features in double precision, and a temperature; all want gradients."""
    generator = torch.Generator().manual_seed(3)
    image, text = (
        F.normalize(torch.randn(NUM_SAMPLES, WIDTH, generator=generator, dtype=torch.float64), dim=-1) for _ in range(2)
    )
    temperature = torch.tensor([TEMPERATURE], dtype=torch.float64)
    return image.requires_grad_(), text.requires_grad_(), temperature.requires_grad_()


def plain_loss(pair: torch.Tensor) -> list[torch.Tensor]:
    """Radford et al. 2021, figure 3, over the pairs, summed; and autograd's gradients of it."""
    image, text, temperature = features()
    logits = image[pair] @ text[pair].t() / temperature
    own = torch.arange(logits.shape[0])
    loss = (F.cross_entropy(logits, own, reduction="sum") + F.cross_entropy(logits.t(), own, reduction="sum")) / 2
    return [loss.detach(), *torch.autograd.grad(loss, (image, text, temperature))]


def by_blocks(pair: torch.Tensor, group: Any, queries_per_block: int) -> list[torch.Tensor]:
    image, text, temperature = (part.detach() for part in features())
    losses, *pulls = whole_batch_contrast(image, text, temperature, pair, group, queries_per_block)
    return [losses.sum(), *pulls]


def largest_error(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """Relative to the largest entry of each."""
    return max(float((own - other).abs().max() / other.abs().max()) for own, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("queries_per_block", [1, 5, 36, 37, 1024])
@pytest.mark.parametrize("missing", [(), (0,), (3, 4, 5, 6, 7, 36), tuple(range(1, 36))])
def test_loss_and_gradients_equal_autograd_of_the_whole_matrix(
    missing: tuple[int, ...], queries_per_block: int, group: Any
) -> None:
    pair = torch.tensor([sample not in missing for sample in range(NUM_SAMPLES)])
    found, wanted = by_blocks(pair, group, queries_per_block), plain_loss(pair)
    assert largest_error(found, wanted) < 1e-9


def test_a_sample_without_a_pair_gets_no_gradient_and_gives_none(group: Any) -> None:
    pair = torch.tensor([sample not in (2, 20) for sample in range(NUM_SAMPLES)])
    _, image_pull, text_pull, _ = by_blocks(pair, group, 5)
    assert not image_pull[[2, 20]].any() and not text_pull[[2, 20]].any()


def test_a_batch_without_any_pair_has_no_loss_and_no_gradient(group: Any) -> None:
    found = by_blocks(torch.zeros(NUM_SAMPLES, dtype=torch.bool), group, 5)
    assert all(part.isfinite().all() and not part.any() for part in found)


def test_one_pair_alone_has_nothing_to_be_told_from(group: Any) -> None:
    found = by_blocks(torch.arange(NUM_SAMPLES) == 9, group, 5)
    assert all(torch.allclose(part, torch.zeros_like(part), atol=1e-12) for part in found)
