"""Fine-tuning gives the losses of one process on any layout, label smoothing and first weights of a run included."""

from dataclasses import replace
from typing import Any

import pytest

from tests.helpers import NUM_ANSWERS, run_ranks, tiny_plan, train_steps

TASKS = {
    "caption": {"name": "caption"},
    "retrieval": {"name": "retrieval"},
    "written answers": {"name": "vqa"},
    "chosen answers": {"name": "vqa", "answering": "choose", "answers": [str(n) for n in range(NUM_ANSWERS)]},
}
NUM_STEPS, LARGEST_BLOCK = 3, 8
LAYOUTS = {"dp2": (2, 1, 1), "tp2": (2, 2, 1), "pp2": (2, 1, 2)}  # ranks, tp, pp


def reports_of_all(dp: int, tp: int, pp: int) -> dict[str, list[Any]]:
    from mmtrain.engine.build import join
    from mmtrain.parallel.launch import read_launch

    sections = {"parallel": {"tp": tp, "pp": pp}, "train": {"micro_batch_size": LARGEST_BLOCK // dp}}
    plans = {name: tiny_plan(task=task, **sections) for name, task in TASKS.items()}
    place = join(plans["caption"], read_launch())
    changes = {"written answers": with_prompts}
    return {name: train_steps(plan, NUM_STEPS, place, changes.get(name)) for name, plan in plans.items()}


def with_prompts(batch: Any) -> Any:
    """The first tokens of each text are the question."""
    lengths_B = (batch.text_lengths_B // 2).clamp_min(1)
    return replace(batch, prompt_lengths_B=lengths_B, prefix_lengths_B=lengths_B)


@pytest.fixture(scope="module")
def alone() -> dict[str, list[Any]]:
    return run_ranks(1, reports_of_all, 1, 1, 1)[0]


def test_a_task_learns_what_it_presets_and_no_more(alone: dict[str, list[Any]]) -> None:
    assert set(alone["caption"][0].losses) == {"loss", "loss_lm"}
    assert set(alone["retrieval"][0].losses) == {"loss", "loss_itc", "loss_itm"}
    assert set(alone["written answers"][0].losses) == {"loss", "loss_lm"}
    assert set(alone["chosen answers"][0].losses) == {"loss", "loss_answer"}
    for reports in alone.values():
        assert reports[-1].losses["loss"] < reports[0].losses["loss"]


@pytest.mark.parametrize("layout", [pytest.param("dp2", marks=pytest.mark.long), "tp2", "pp2"])
def test_fine_tuning_on_any_layout_equals_that_on_one_process(layout: str, alone: dict[str, list[Any]]) -> None:
    num_ranks, tp, pp = LAYOUTS[layout]
    for found in run_ranks(num_ranks, reports_of_all, num_ranks // (tp * pp), tp, pp):
        for name, reports in found.items():
            for report, wanted in zip(reports, alone[name], strict=True):
                assert report.losses == pytest.approx(wanted.losses, rel=1e-4), name
                assert report.grad_norm == pytest.approx(wanted.grad_norm, rel=1e-4), name
