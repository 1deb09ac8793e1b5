"""The cut of the depth: pure, optimal, refused where it cannot be."""

import random
from itertools import combinations

import pytest

from mmtrain.config.schema import RunConfig
from mmtrain.planner.stages import cut_depth, depth_costs, stage_layers


def dearest(costs: list[float], cut: tuple[int, ...]) -> float:
    starts = [sum(cut[:stage]) for stage in range(len(cut) + 1)]
    return max(sum(costs[start:stop]) for start, stop in zip(starts, starts[1:], strict=False))


def cuts(num_layers: int, num_stages: int) -> list[tuple[int, ...]]:
    """All of them."""
    inner = combinations(range(1, num_layers), num_stages - 1)
    edges = [(0, *places, num_layers) for places in inner]
    return [tuple(stop - start for start, stop in zip(edge, edge[1:], strict=False)) for edge in edges]


@pytest.mark.parametrize("seed", range(20))
def test_no_cut_has_a_cheaper_dearest_stage(seed: int) -> None:
    draw = random.Random(seed)
    costs = [draw.choice([1.0, 2.0, 5.0, draw.random()]) for _ in range(draw.randint(1, 9))]
    for num_stages in range(1, len(costs) + 1):
        cut = cut_depth(costs, num_stages)
        assert sum(cut) == len(costs) and len(cut) == num_stages and min(cut) >= 1
        best = min(dearest(costs, other) for other in cuts(len(costs), num_stages))
        assert dearest(costs, cut) == pytest.approx(best, rel=1e-12)


def test_as_many_stages_as_layers_take_one_layer_each() -> None:
    assert cut_depth([3.0, 1.0, 2.0], 3) == (1, 1, 1)


def test_one_stage_takes_all() -> None:
    assert cut_depth([3.0, 1.0, 2.0], 1) == (3,)


def test_of_equal_cuts_the_later_stages_are_the_shorter() -> None:
    assert cut_depth([1.0] * 5, 2) == (3, 2)


def test_more_stages_than_layers_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match="3 layers cannot be cut into 4 stages"):
        cut_depth([1.0] * 3, 4)


def test_a_cut_by_hand_goes_before_the_cut_by_cost() -> None:
    by_hand = RunConfig.model_validate({"parallel": {"pp": 2, "stage_layers": [1, 7]}})
    assert stage_layers(by_hand, 512) == (1, 7)
    assert stage_layers(RunConfig.model_validate({"parallel": {"pp": 2}}), 512) != (1, 7)


def test_the_vocabulary_head_makes_the_last_layer_dearer() -> None:
    costs = depth_costs(RunConfig(), 512)
    assert len(costs) == 8 and costs[-1] > costs[-2]
    assert depth_costs(RunConfig(), 4096)[-1] > costs[-1]
