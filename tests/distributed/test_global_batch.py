"""ITC over the global batch: many micro-batches on many ranks are one process with one micro-batch."""

from typing import Any

import pytest

from tests.comparison import Ranks, Run, distance, train_on
from tests.helpers import tiny_plan

GLOBAL_BATCH, HEAD_SIZE = 64, 8  # of tiny_plan
RANKS = Ranks(dp=2, pp=2)


def run_of(ranks: Ranks, num_batches: int, gather: str) -> Run:
    """One step of `num_batches` micro-batches."""
    size = GLOBAL_BATCH // num_batches // ranks.dp
    plan = tiny_plan(
        parallel=ranks.parallel,
        zero={"stage": 3, "gather": gather},
        itc={"negatives": "global_batch"},
        train={"global_batch_size": GLOBAL_BATCH, "micro_batch_size": size},
    )
    return Run(plan, num_steps=1)


@pytest.mark.parametrize("gather", ["per_use", "per_step"])
def test_eight_micro_batches_on_four_ranks_are_one_on_one(gather: str, found: dict[str, Any]) -> None:
    far = distance(found[gather], found["alone"], HEAD_SIZE)
    assert max(far.losses, far.grad_norm, far.gradient[0]) <= 1e-4, far


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """The step of one process, and of four ranks in both modes."""
    alone = train_on(1, {"alone": run_of(Ranks(), 1, "per_use")})
    return alone | train_on(4, {gather: run_of(RANKS, 8, gather) for gather in ("per_use", "per_step")})
