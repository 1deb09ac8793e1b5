"""The learned temperature: within its bounds, and never stuck at one."""

import math

import pytest
import torch

from mmtrain.config.schema import ItcConfig
from mmtrain.model.heads import ContrastHead
from tests.helpers import tiny_plan

BOUNDS = ItcConfig(initial_temperature=0.07, min_temperature=0.01, max_temperature=0.5)


def head_at(temperature: float) -> ContrastHead:
    head = ContrastHead(tiny_plan().model, BOUNDS)
    head.log_temperature.data.fill_(math.log(temperature))
    return head


def tokens_of(num_samples: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image tokens, text tokens, and the place of each text's last token."""
    tokens = (torch.randn(5, num_samples, 32).to(dtype) for _ in range(2))
    return *tokens, torch.arange(num_samples)


def used_and_gradient(temperature: float, direction: float) -> tuple[float, float]:
    """The temperature that the head hands out, and the gradient that its parameter gets of `direction` times it."""
    head = head_at(temperature)
    used = head(*tokens_of(2))[2]
    (direction * used).sum().backward()
    return float(used.detach()), float(head.log_temperature.grad)


def test_it_starts_where_the_config_says() -> None:
    used = ContrastHead(tiny_plan().model, BOUNDS)(*tokens_of(2))[2]
    assert float(used) == pytest.approx(0.07)


@pytest.mark.parametrize(("stored", "used"), [(0.001, 0.01), (0.01, 0.01), (0.2, 0.2), (0.5, 0.5), (3.0, 0.5)])
def test_it_is_held_within_its_bounds(stored: float, used: float) -> None:
    assert used_and_gradient(stored, 1.0)[0] == pytest.approx(used)


def test_between_the_bounds_every_gradient_passes() -> None:
    assert used_and_gradient(0.2, 1.0)[1] == pytest.approx(0.2)
    assert used_and_gradient(0.2, -1.0)[1] == pytest.approx(-0.2)


@pytest.mark.parametrize(("stored", "back_inside"), [(0.001, -1.0), (3.0, 1.0)])
def test_beyond_a_bound_only_a_gradient_that_leads_back_passes(stored: float, back_inside: float) -> None:
    # Descent moves against the gradient: below the lower bound a negative one leads back up.
    assert used_and_gradient(stored, back_inside)[1] * back_inside > 0
    assert used_and_gradient(stored, -back_inside)[1] == 0.0


def test_features_have_unit_length_in_float32() -> None:
    head = head_at(0.1).to(torch.bfloat16)
    features = head(*tokens_of(3, torch.bfloat16))[:2]
    for part in features:
        assert part.dtype == torch.float32 and part.shape == (3, 16)
        torch.testing.assert_close(part.norm(dim=-1), torch.ones(3))


def test_of_a_text_the_first_or_the_last_token_is_read() -> None:
    image_SBH, text_TBH, last_B = tokens_of(3)
    for pooling, read in (("first", text_TBH[0]), ("last", text_TBH[last_B, [0, 1, 2]])):
        head = ContrastHead(tiny_plan(model={"text_pooling": pooling}).model, BOUNDS)
        wanted_BE = torch.nn.functional.normalize(head.text(read), dim=-1)
        torch.testing.assert_close(head(image_SBH, text_TBH, last_B)[1], wanted_BE)


def test_an_image_pool_reads_every_token_and_no_token_twice() -> None:
    head = ContrastHead(tiny_plan(model={"vision_pooling": "attention"}).model, BOUNDS)
    torch.nn.init.normal_(head.image_pool.probe)
    image_SBH, text_TBH, last_B = tokens_of(2)
    found = head(image_SBH, text_TBH, last_B)[0]
    turned = head(image_SBH.flip(0), text_TBH, last_B)[0]
    torch.testing.assert_close(found, turned)  # a set of tokens, in whatever order
    assert not torch.allclose(found, head(image_SBH[1:], text_TBH, last_B)[0])
