"""What a step did, as a row and as a line."""

import logging
from pathlib import Path

import pytest

from mmtrain.monitor.log import RunLog, read_rows
from mmtrain.monitor.meters import Meters
from mmtrain.records import StepReport

FIELDS = {
    "step", "loss", "loss_mlm", "loss_itc", "loss_itm", "loss_lm", "grad_norm", "lr", "temperature", "samples",
    "samples_per_second", "tokens_per_second", "step_seconds", "tflops_per_device", "mfu", "data_wait_seconds",
    "skipped",
}  # fmt: skip


def report(**changes: object) -> StepReport:
    losses = {"loss": 4.0, "loss_mlm": 1.0, "loss_itc": 1.5, "loss_itm": 0.5, "loss_lm": 1.0}
    given = {"losses": losses, "grad_norm": 2.0, "learning_rate": 1e-3, "temperature": 0.07}
    return StepReport(**{**given, "num_samples": 64, "num_tokens": 6400, "flops": 8e12, **changes})


def meters(log: RunLog, **changes: object) -> Meters:
    return Meters(log, **{"num_steps": 10, "num_devices": 2, "peak_tflops": 20.0, "terminal": False, **changes})


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    with RunLog(tmp_path, writes=True) as log:
        yield log


def test_a_row_has_every_promised_field_and_no_other(log: RunLog) -> None:
    row = meters(log).record(1, report(), step_seconds=0.5, data_wait_seconds=0.1)
    assert set(row) == FIELDS
    assert read_rows(log.run_dir) == [row]


def test_rates_are_those_counted_by_hand(log: RunLog) -> None:
    row = meters(log).record(1, report(), step_seconds=0.5, data_wait_seconds=0.1)
    assert (row["samples_per_second"], row["tokens_per_second"]) == (128.0, 12800.0)
    assert row["tflops_per_device"] == 8.0  # 8 TFLOP over half a second and two devices
    assert row["mfu"] == 0.4
    assert (row["step_seconds"], row["data_wait_seconds"], row["lr"]) == (0.5, 0.1, 1e-3)


def recorded(shown: Meters, steps: range) -> list[int]:
    return [shown.record(step, report(), step_seconds=1, data_wait_seconds=0)["samples"] for step in steps]


def test_samples_are_a_running_total_that_goes_on_after_a_restart(log: RunLog) -> None:
    recorded(meters(log), range(1, 6))
    going_on = meters(log)
    going_on.resume(5)
    assert recorded(going_on, range(6, 8)) == [384, 448]
    assert going_on.samples == 448


def test_steps_that_were_left_out_are_counted(log: RunLog) -> None:
    counts = meters(log)
    for step, is_skipped in enumerate([False, True, True, False], 1):
        counts.record(step, report(is_skipped=is_skipped), step_seconds=1, data_wait_seconds=0)
    assert [row["skipped"] for row in read_rows(log.run_dir)] == [0, 1, 2, 2]


def test_rows_after_the_step_that_a_run_goes_on_from_are_forgotten(log: RunLog) -> None:
    before = meters(log)
    for step in range(1, 6):
        recorded(before, range(step, step + 1))
        before.record_scores(step, "heldout", {"itm_accuracy": 0.5})
    meters(log).resume(3)
    assert [(row["step"], "eval" in row) for row in read_rows(log.run_dir)] == [
        (step, scores) for step in (1, 2, 3) for scores in (False, True)
    ]
    meters(log).resume(0)
    assert read_rows(log.run_dir) == []


def test_the_last_scores_of_a_run_that_was_over_are_taken_anew(log: RunLog) -> None:
    before = meters(log)
    recorded(before, range(1, 11))
    before.record_scores(5, "heldout", {"itm_accuracy": 0.5})
    before.record_scores(10, "heldout", {"itm_accuracy": 0.5})
    meters(log).resume(10)
    assert [row["step"] for row in read_rows(log.run_dir) if "eval" in row] == [5]
    assert len(read_rows(log.run_dir)) == 11


def test_utilization_is_null_where_the_peak_is_not_known(log: RunLog) -> None:
    row = meters(log, peak_tflops=None).record(1, report(), step_seconds=1, data_wait_seconds=0)
    assert row["mfu"] is None and row["tflops_per_device"] == 4.0


def test_the_loss_of_an_objective_left_out_is_null(log: RunLog) -> None:
    row = meters(log).record(1, report(losses={"loss": 1.5, "loss_itc": 1.5}), step_seconds=1, data_wait_seconds=0)
    assert (row["loss_itc"], row["loss_mlm"], row["loss_lm"]) == (1.5, None, None)


def test_each_step_is_one_line_with_the_time_left(log: RunLog, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mmtrain")
    meters(log).record(4, report(), step_seconds=10.0, data_wait_seconds=0)
    (line,) = caplog.messages
    assert line.startswith("step 4/10  loss 4.0000  mlm 1.0000") and line.endswith("left 0:01:00")


def test_scores_are_one_row_that_names_the_evaluation(log: RunLog, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mmtrain")
    row = meters(log).record_scores(5, "heldout", {"itm_accuracy": 0.5, "num_pairs": 512})
    assert row == {"step": 5, "eval": "heldout", "itm_accuracy": 0.5, "num_pairs": 512}
    assert read_rows(log.run_dir) == [row]
    assert caplog.messages == ["step 5  eval heldout  itm_accuracy 0.5000  num_pairs 512"]


def test_a_rank_that_does_not_write_counts_but_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mmtrain")
    silent = meters(RunLog(tmp_path, writes=False), terminal=True)
    silent.record(1, report(), step_seconds=1, data_wait_seconds=0)
    silent.record_scores(1, "heldout", {"itm_accuracy": 0.5})
    assert silent.samples == 64 and caplog.messages == []


def test_a_terminal_gets_a_bar_with_the_time_left(log: RunLog, capsys: pytest.CaptureFixture[str]) -> None:
    shown = meters(log, terminal=True)
    shown.record(4, report(), step_seconds=10.0, data_wait_seconds=0)
    shown.close()
    words = capsys.readouterr().err
    assert "4/10" in words and "left 0:01:00" in words and "loss 4.0000" in words


def test_a_run_of_any_length_says_how_long_it_takes(log: RunLog, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    meters(log, num_steps=2**63 - 1).record(1, report(), step_seconds=1e3, data_wait_seconds=0)
    assert "left 11574 days" in caplog.text
