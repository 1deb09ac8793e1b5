"""A sample that only the first stage found unusable is empty for all stages; losses are those of one process."""

from typing import Any

import pytest
import torch

from tests.helpers import VOCAB_SIZE, global_batch_of, run_ranks, tiny_plan

UNUSABLE = torch.tensor([False, True, False, False, True, False, False, False])


def two_steps(pp: int) -> list[dict[str, float]]:
    from mmtrain.engine.agreement import emptied
    from mmtrain.engine.build import build_engine, join
    from mmtrain.parallel.launch import read_launch

    plan = tiny_plan(parallel={"pp": pp})
    place = join(plan, read_launch())
    engine = build_engine(plan, place, num_pieces=VOCAB_SIZE)
    losses = []
    for step in range(2):
        batches = global_batch_of(step, plan, 1, 0)
        if place.groups.coord.pp == 0:
            batches = [emptied(batch, UNUSABLE) for batch in batches]
        losses.append(engine.step(batches).losses)
    return losses


def test_what_the_first_stage_cannot_read_no_stage_counts() -> None:
    alone: Any = run_ranks(1, two_steps, 1)[0]
    for staged in run_ranks(2, two_steps, 2):
        for step, wanted in zip(staged, alone, strict=True):
            assert step == pytest.approx(wanted, rel=1e-4)
