"""Towers of other shapes train alike on every layout: their knobs know nothing of ranks."""

from typing import Any

import pytest

from tests.comparison import Ranks, Run, Training, distance, train_on
from tests.distributed.exported import TOWERS
from tests.helpers import tiny_plan

OTHERS = [name for name in TOWERS if name != "one width"]
LAYOUTS = [Ranks(tp=2, shares_tokens=True), Ranks(pp=2)]
MOST = 1e-4  # relative


def runs(ranks: Ranks) -> dict[str, Run]:
    sections = {"parallel": ranks.parallel, "zero": {"gather": "per_use"}}
    plans = {name: tiny_plan(**sections, model={"init_std": 0.1, **TOWERS[name]}) for name in OTHERS}
    return {name: Run(plan, num_steps=3) for name, plan in plans.items()}


@pytest.fixture(scope="module")
def alone() -> dict[str, Training]:
    return train_on(1, runs(Ranks()))


@pytest.mark.long
@pytest.mark.parametrize("ranks", LAYOUTS, ids=str)
def test_losses_and_gradients_are_those_of_one_process(ranks: Ranks, alone: dict[str, Training]) -> None:
    head_size = tiny_plan().model.head_size
    found: dict[str, Any] = train_on(ranks.world_size, runs(ranks))
    for name in OTHERS:
        apart = distance(found[name], alone[name], head_size)
        assert max(apart.losses, apart.grad_norm, apart.gradient[0]) < MOST, (name, apart)
