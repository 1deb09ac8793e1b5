"""One process, data parallel, tensor parallel and both give the same losses and gradient norms, at every ZeRO stage."""

from typing import Any

import pytest

from tests.helpers import run_ranks, tiny_plan, train_steps

NUM_STEPS = 5
LARGEST_BLOCK = 8  # samples of one micro-batch over all data-parallel ranks: what ITC contrasts
LAYOUTS = {"dp2": (2, 1), "tp2": (2, 2), "dp2-tp2": (4, 2)}  # processes, tensor-parallel ranks


def reports_of_every_stage(tp: int, dp: int, changes: dict[str, Any]) -> dict[int, list[Any]]:
    from mmtrain.engine.build import join
    from mmtrain.parallel.launch import read_launch

    def plan(stage: int) -> Any:
        micro_batch_size = LARGEST_BLOCK // dp
        sections = {"parallel": {"tp": tp}, "zero": {"stage": stage}, "train": {"micro_batch_size": micro_batch_size}}
        return tiny_plan(**{**sections, **changes})

    place = join(plan(3), read_launch())
    return {stage: train_steps(plan(stage), NUM_STEPS, place) for stage in (1, 2, 3)}


def reports_under_zero_alone() -> dict[int, list[Any]]:
    """On one process, where a run would do without ZeRO: every stage of it all the same."""
    from mmtrain.engine.build import join
    from mmtrain.engine.zero import ZeroStates
    from mmtrain.parallel.launch import read_launch

    plans = {stage: tiny_plan(zero={"stage": stage}, train={"micro_batch_size": LARGEST_BLOCK}) for stage in (1, 2, 3)}
    place = join(plans[3], read_launch())
    return {stage: train_steps(plan, NUM_STEPS, place, holder=ZeroStates) for stage, plan in plans.items()}


@pytest.fixture(scope="module")
def alone() -> dict[int, list[Any]]:
    return run_ranks(1, reports_of_every_stage, 1, 1, {})[0]


def same(reports: list[Any], expected: list[Any]) -> None:
    for report, wanted in zip(reports, expected, strict=True):
        assert report.losses == pytest.approx(wanted.losses, rel=1e-4)
        assert report.grad_norm == pytest.approx(wanted.grad_norm, rel=1e-4)
        assert report.temperature == pytest.approx(wanted.temperature, rel=1e-4)


def test_every_zero_stage_equals_unsharded_on_one_process(alone: dict[int, list[Any]]) -> None:
    for reports in run_ranks(1, reports_under_zero_alone)[0].values():
        same(reports, alone[3])
    assert {"loss", "loss_mlm", "loss_itc", "loss_itm", "loss_lm"} == set(alone[3][0].losses)
    assert alone[3][-1].losses["loss"] < alone[3][0].losses["loss"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_five_steps_on_any_layout_equal_five_steps_on_one_process(layout: str, alone: dict[int, list[Any]]) -> None:
    world_size, tp = LAYOUTS[layout]
    for by_stage in run_ranks(world_size, reports_of_every_stage, tp, world_size // tp, {}):
        for stage, reports in by_stage.items():
            same(reports, alone[stage])


def test_recomputed_activations_change_no_number(alone: dict[int, list[Any]]) -> None:
    recompute = {"model": {"recompute": "full"}}
    for by_stage in run_ranks(2, reports_of_every_stage, 2, 1, recompute):
        same(by_stage[3], alone[3])


def test_without_an_objective_the_others_stay_what_they_were(alone: dict[int, list[Any]]) -> None:
    without = run_ranks(2, reports_of_every_stage, 1, 2, {"loss": {"itc": 0.0}})[0][3][0].losses
    assert "loss_itc" not in without
    kept = ("loss_mlm", "loss_lm", "loss_itm")
    assert [without[name] for name in kept] == pytest.approx([alone[3][0].losses[name] for name in kept], rel=1e-4)
