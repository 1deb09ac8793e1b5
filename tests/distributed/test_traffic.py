"""With `per_step`, what ZeRO moves for an optimizer step does not grow with its micro-batches."""

from typing import Any

import pytest

from tests.benchmarks.traffic import BOUND, plan_of
from tests.helpers import run_ranks
from tests.traffic import GATHERED, moved_on_a_rank, of_zero

NUM_STEPS = 2


@pytest.fixture(scope="module")
def ranks() -> list[dict[Any, Any]]:
    """What each rank of dp2-pp2 moved, in units of its stage's parameters; the global batch asks for a first pass."""
    plans: dict[Any, Any] = {count: plan_of(3, "per_step", "global_batch", count) for count in (2, 8)}
    plans["per_use"] = plan_of(3, "per_use", "global_batch", 2)
    return run_ranks(4, moved_on_a_rank, plans, NUM_STEPS)


@pytest.mark.parametrize("num_batches", [2, 8])
def test_weights_are_gathered_and_gradients_reduced_once_a_step(ranks: list[dict[Any, Any]], num_batches: int) -> None:
    for found in ranks:
        gathered, reduced, _ = found[num_batches][-1]
        assert 1.0 <= gathered <= BOUND and 1.0 <= reduced <= BOUND


def test_all_weights_of_a_small_model_come_in_one_call(ranks: list[dict[Any, Any]]) -> None:
    for found in ranks:
        assert of_zero(found[8][-1][2].calls, GATHERED) == 1


def test_the_first_step_gathers_once_more(ranks: list[dict[Any, Any]]) -> None:
    for found in ranks:
        gathered, reduced, _ = found[8][0]
        assert gathered <= 2 * BOUND and reduced <= BOUND


def test_gathered_per_use_they_move_for_every_micro_batch(ranks: list[dict[Any, Any]]) -> None:
    for found in ranks:
        gathered, reduced, _ = found["per_use"][-1]
        assert gathered > 3.0 and reduced == pytest.approx(2.0, rel=0.05)


def test_stages_send_as_many_packets_as_there_are_micro_batches(ranks: list[dict[Any, Any]]) -> None:
    sent = {
        count: sum(moved for kind, moved in ranks[0][count][-1][2].moved.items() if kind.collective == "send")
        for count in (2, 8)
    }
    assert sent[8] == 4 * sent[2] > 0
