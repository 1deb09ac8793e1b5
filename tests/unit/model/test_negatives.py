"""Hard negatives: which are legal, how often each is drawn, and that nothing but the samples decides."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mmtrain.model.rows import Layout, Negatives, Rows, draw_negatives, plan_rows
from tests.helpers import made_batch

POOL, WIDTH = 6, 8
TEMPERATURE = torch.tensor([0.3])


def rows_of(num_samples: int, **changes: object) -> Rows:
    return replace(plan_rows(made_batch(range(num_samples)), Layout.of(["clean"])), **changes)


def features(num_samples: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(F.normalize(torch.randn(num_samples, WIDTH, generator=generator), dim=-1) for _ in range(2))


def drawn(rows: Rows, seed: int = 1, pool_size: int = POOL) -> Negatives:
    return draw_negatives(*features(rows.has_pair_B.shape[0], seed), TEMPERATURE, rows, pool_size)


@pytest.mark.parametrize("seed", range(5))
def test_a_negative_is_a_whole_pair_of_the_same_pool_with_another_image_and_caption(seed: int) -> None:
    draws = torch.rand(120, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows = rows_of(120, draws_B2=draws)
    negatives = drawn(rows, seed)
    own = torch.arange(120)[negatives.has_B]
    assert not rows.has_pair_B.all() and len(own) > 60  # some samples lack a part, most have a negative
    for chosen in (negatives.image_B[negatives.has_B], negatives.text_B[negatives.has_B]):
        assert (chosen // POOL == own // POOL).all()
        assert rows.has_pair_B[chosen].all() and rows.has_pair_B[own].all()
        assert (rows.image_ids_B[chosen] != rows.image_ids_B[own]).all()
        assert (rows.caption_ids_B[chosen] != rows.caption_ids_B[own]).all()


def test_a_sample_without_a_legal_candidate_has_none() -> None:
    every = torch.ones(POOL, dtype=torch.bool)
    same_caption = rows_of(POOL, has_pair_B=every, caption_ids_B=torch.zeros(POOL, dtype=torch.int64))
    one_pair = rows_of(POOL, has_pair_B=torch.arange(POOL) == 2)
    for rows in (same_caption, one_pair):
        negatives = drawn(rows)
        assert not negatives.has_B.any()
        assert negatives.image_B.tolist() == negatives.text_B.tolist() == list(range(POOL))


@pytest.mark.parametrize("draw", [0.0, 1.0 - 2.0**-53])
def test_the_smallest_and_the_largest_draw_find_legal_candidates(draw: float) -> None:
    rows = rows_of(POOL, draws_B2=torch.full((POOL, 2), draw, dtype=torch.float64))
    rows = replace(rows, has_pair_B=torch.tensor([False, True, True, False, True, False]))
    rows = replace(rows, caption_ids_B=torch.arange(POOL))
    negatives = drawn(rows)
    first = draw == 0.0
    assert negatives.image_B[[1, 2, 4]].tolist() == ([2, 1, 1] if first else [4, 4, 2])
    assert negatives.text_B[[1, 2, 4]].tolist() == ([2, 1, 1] if first else [4, 4, 2])


def test_candidates_are_drawn_in_proportion_to_the_exponential_of_their_similarity() -> None:
    num_pools = 2000
    image_BE, text_BE = features(POOL)
    even = (torch.arange(num_pools, dtype=torch.float64) + 0.5) / num_pools
    draws_GP2 = torch.stack([even, even.flip(0)], dim=-1)[:, None].expand(-1, POOL, -1)
    rows = rows_of(
        POOL * num_pools,
        has_pair_B=torch.ones(POOL * num_pools, dtype=torch.bool),
        caption_ids_B=torch.arange(POOL * num_pools),
        draws_B2=draws_GP2.flatten(0, 1),
    )
    repeated = (part.repeat(num_pools, 1) for part in (image_BE, text_BE))
    negatives = draw_negatives(*repeated, TEMPERATURE, rows, POOL)
    logits_PP = (image_BE @ text_BE.t() / TEMPERATURE).double().fill_diagonal_(-torch.inf)
    wanted = {"image": logits_PP.t().softmax(dim=-1), "text": logits_PP.softmax(dim=-1)}
    assert (wanted["image"] - wanted["text"]).abs().max() > 0.1  # else the two could be exchanged unseen
    for name, chosen_B in (("image", negatives.image_B), ("text", negatives.text_B)):
        seen_PP = F.one_hot(chosen_B.view(num_pools, POOL) % POOL, POOL).double().mean(dim=0)
        # Evenly spread draws hit an interval of the unit as often as it is long, to one draw.
        torch.testing.assert_close(seen_PP, wanted[name], rtol=0, atol=1.5 / num_pools)


def test_the_draw_of_a_pool_does_not_depend_on_its_neighbours() -> None:
    rows, (image_BE, text_BE) = rows_of(24), features(24)
    whole = draw_negatives(image_BE, text_BE, TEMPERATURE, rows, POOL)
    for start in range(0, 24, POOL):
        part = slice(start, start + POOL)
        names = ("has_pair_B", "image_ids_B", "caption_ids_B", "draws_B2")
        own = replace(rows, **{name: getattr(rows, name)[part] for name in names})
        alone = draw_negatives(image_BE[part], text_BE[part], TEMPERATURE, own, POOL)
        assert (alone.image_B + start).tolist() == whole.image_B[part].tolist()
        assert (alone.text_B + start).tolist() == whole.text_B[part].tolist()
        assert alone.has_B.tolist() == whole.has_B[part].tolist()


def test_the_choice_leaves_no_gradient_behind() -> None:
    image_BE, text_BE = (part.requires_grad_() for part in features(POOL))
    temperature = TEMPERATURE.clone().requires_grad_()
    negatives = draw_negatives(image_BE, text_BE, temperature, rows_of(POOL), POOL)
    assert not any(part.requires_grad for part in (negatives.image_B, negatives.text_B, negatives.has_B))
