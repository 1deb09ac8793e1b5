"""Ranks that no longer agree stop, all of them, with a message that names what differs."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers import VOCAB_SIZE, global_batch_of, run_ranks, tiny_plan

ODD_RANK = 3  # of dp2-tp2


def other_norm(model: Any) -> None:
    """A weight that tensor-parallel ranks hold alike; under ZeRO-1 data-parallel ones do too."""
    model.vision.final_norm.weight.data[0] += 1e-6


def other_matrix(model: Any) -> None:
    """A weight that tensor parallelism cuts."""
    model.token.vocabulary.weight.data[0, 0] += 1e-6


def other_part_of_a_norm(model: Any) -> None:
    """The same under ZeRO-3, in what this rank keeps."""
    model.vision.final_norm.weight.ds_tensor.data[0] += 1e-6


CASES: dict[str, tuple[int, Callable[[Any], None] | None, str]] = {  # ZeRO stage, what the odd rank does, what is said
    "a replicated weight along tp": (3, other_part_of_a_norm, "do not agree on their replicated weights: {2: "),
    "a weight along dp": (1, other_matrix, "do not agree on their weights: {1: "),
    "a replicated weight along both": (1, other_norm, "do not agree on their replicated weights: {2: "),
    "another config": (3, None, "do not agree on their config: {0: "),
}


def said_on_a_rank() -> dict[str, list[str]]:
    """What each of two steps said on this rank; the odd rank meddles between them."""
    from mmtrain.engine.build import build_engine, join
    from mmtrain.engine.invariants import InvariantError
    from mmtrain.parallel.launch import read_launch

    def plan_of(stage: int) -> Any:
        return tiny_plan(parallel={"tp": 2}, zero={"stage": stage}, train={"micro_batch_size": 4})

    place, found = join(plan_of(3), read_launch()), {}
    for name, (stage, meddle, _) in CASES.items():
        plan = plan_of(stage)
        engine = build_engine(plan, place, num_pieces=VOCAB_SIZE)
        found[name] = []
        for step in range(2):
            if step == 1 and place.groups.rank == ODD_RANK:
                if meddle is None:
                    engine.invariants.config_digest = "that of another seed"
                else:
                    meddle(engine.states.model)
            try:
                engine.step(global_batch_of(step, plan, 2, place.groups.coord.dp))
                found[name].append("")
            except InvariantError as error:
                found[name].append(str(error))
    return found


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, list[str]]]:
    return run_ranks(4, said_on_a_rank)


@pytest.mark.parametrize("case", CASES)
def test_every_rank_stops_and_says_what_differs(case: str, ranks: list[dict[str, list[str]]]) -> None:
    for found in ranks:
        assert found[case][0] == "" and CASES[case][2] in found[case][1]
