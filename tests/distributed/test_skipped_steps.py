"""A step whose gradients or loss are no finite numbers leaves everything as it was, whoever found it."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.helpers import VOCAB_SIZE, global_batch_of, run_ranks, tiny_plan

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {  # ranks, and what all plans of a layout have
    "1": (1, {}),
    "dp2": (2, {}),
    "pp2": (2, {"parallel": {"pp": 2}}),
    "tp2": (2, {"parallel": {"tp": 2}}),
}
KINDS: dict[str, list[dict[str, Any]]] = {
    "1": [{}, {"precision": "bf16"}],
    "dp2": [
        {"zero": {"stage": 1}},
        {"zero": {"stage": 2}, "precision": "bf16"},
        {"zero": {"stage": 3, "gather": "per_use"}},
        {"zero": {"stage": 3, "gather": "per_step"}},
    ],
    "pp2": [{}],
    "tp2": [{"precision": "bf16"}],
}


def poison(model: Any) -> Any:
    """From the next backward on one gradient is no number, until the handle is removed."""
    name, param = list(model.named_parameters())[-1]
    return param.register_hook(lambda gradient: torch.full_like(gradient, torch.nan))


def kept_by(engine: Any) -> list[torch.Tensor]:
    """Copies of weights, masters and moments as this rank holds them."""
    optimizer = getattr(engine.states, "optimizer", None) or engine.states.engine.optimizer.optimizer
    moments = [value for state in optimizer.state.values() for value in state.values()]
    masters = [param for group in optimizer.param_groups for param in group["params"]]
    weights = [getattr(param, "ds_tensor", param) for param in engine.states.model.parameters()]
    return [tensor.detach().clone() for tensor in (*moments, *masters, *weights)]


def two_runs(layout: str) -> list[dict[str, Any]]:
    """For each kind: a run of four steps, and another that met a bad one between them, found by its last rank."""
    from mmtrain.engine.build import join
    from mmtrain.parallel.launch import read_launch

    plans = [tiny_plan(invariants={"every_step": True}, **LAYOUTS[layout][1], **kind) for kind in KINDS[layout]]
    place = join(plans[0], read_launch())
    return [
        {"plain": steps_of(plan, place, None), "poisoned": steps_of(plan, place, found), **found}
        for plan, found in ((plan, {}) for plan in plans)
    ]


def steps_of(plan: Any, place: Any, found: dict[str, Any] | None) -> list[Any]:
    """What four steps reported; after two of them a bad one where there is a place to say how it went."""
    from mmtrain.engine.build import build_engine
    from mmtrain.parallel.device import resolve_precision

    place = replace(place, dtype=resolve_precision(plan.precision, place.device))
    rank, (dp, dp_rank) = place.groups.rank, (place.groups.grid.dp, place.groups.coord.dp)
    engine = build_engine(plan, place, num_pieces=VOCAB_SIZE, received=lambda: 12 * rank)
    reports = [engine.step(global_batch_of(step, plan, dp, dp_rank)) for step in (0, 1)]
    if found is not None:
        before = kept_by(engine)
        handle = poison(engine.states.model) if rank == place.groups.grid.world_size - 1 else None
        skipped = engine.step(global_batch_of(2, plan, dp, dp_rank))
        found["is_skipped"] = (skipped.is_skipped, skipped.bad_places)
        found["is_unchanged"] = all(map(torch.equal, before, kept_by(engine)))
        if handle:
            handle.remove()
    reports += [engine.step(global_batch_of(step, plan, dp, dp_rank)) for step in (3, 4)]
    return [(report.losses, report.grad_norm, report.learning_rate, report.signal) for report in reports]


@pytest.mark.parametrize("layout", ["1", "dp2", "pp2", pytest.param("tp2", marks=pytest.mark.long)])
def test_a_bad_gradient_on_one_rank_changes_nothing_on_any(layout: str) -> None:
    world_size = LAYOUTS[layout][0]
    for found in [one for rank in run_ranks(world_size, two_runs, layout) for one in rank]:
        assert found["is_skipped"] == (True, ()) and found["is_unchanged"]
        assert found["poisoned"] == found["plain"]  # to the bit, norms and learning rates too
        assert found["plain"][-1][-1] == 12 * (world_size - 1)  # the signal that any rank received


def places_at_fault() -> tuple[bool, tuple[int, ...]]:
    """What a bad loss in this rank's second micro-batch is called; only rank 1 meets one."""
    from mmtrain.engine.build import build_engine, join
    from mmtrain.parallel.launch import read_launch

    plan = tiny_plan(train={"micro_batch_size": 4})
    place = join(plan, read_launch())
    engine = build_engine(plan, place, num_pieces=VOCAB_SIZE)
    batches = global_batch_of(0, plan, 2, place.groups.coord.dp)
    losses = engine.accumulate(batches)
    if place.groups.rank == 1:
        losses[1]["loss"] *= torch.inf
    report = engine.update(batches, losses)
    return report.is_skipped, report.bad_places


def test_a_bad_loss_is_told_with_the_places_of_its_micro_batch() -> None:
    assert run_ranks(2, places_at_fault) == [(True, (12, 13, 14, 15))] * 2
