"""The run's log: whole lines at full precision, from one rank, through restarts and kills."""

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from mmtrain.monitor.log import RunLog, read_rows, start_logging

THIRD = 1 / 3


@pytest.fixture(autouse=True)
def _loggers_as_before() -> object:
    logger = logging.getLogger("mmtrain")
    before = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate = before[:2]
    logger.setLevel(before[2])


def test_rows_come_back_at_full_precision(tmp_path: Path) -> None:
    row = {"step": 1, "loss": THIRD, "mfu": None, "grad_norm": 1e-17 + 1e-30}
    with RunLog(tmp_path, writes=True) as log:
        log.write(row)
        assert read_rows(tmp_path) == [row]  # flushed: no close was needed


def test_what_is_no_number_is_null_as_json_has_no_word_for_it(tmp_path: Path) -> None:
    with RunLog(tmp_path, writes=True) as log:
        log.write({"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "lr": 0.5})
    assert json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=pytest.fail) == {
        "step": 1, "loss": None, "grad_norm": None, "lr": 0.5,
    }  # fmt: skip


def test_a_run_that_goes_on_appends(tmp_path: Path) -> None:
    for step in (1, 2):
        with RunLog(tmp_path, writes=True) as log:
            log.write({"step": step})
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2]


def test_a_log_without_a_line_is_nothing_to_warn_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "log.jsonl").touch()
    assert read_rows(tmp_path) == [] and not caplog.records


def test_half_a_line_of_a_killed_run_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    with RunLog(tmp_path, writes=True) as log:
        log.write({"step": 2})
    assert read_rows(tmp_path) == [{"step": 1}, {"step": 2}]


def test_a_rank_that_does_not_write_leaves_nothing(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run", writes=False) as log:
        log.write({"step": 1, "loss": 2.0})
        log.show(1, "sheet", np.zeros((2, 2, 3), np.uint8))
    assert not (tmp_path / "run").exists()


def test_tensorboard_holds_the_scalars_of_training_and_of_evaluation_and_the_pictures(tmp_path: Path) -> None:
    with RunLog(tmp_path, writes=True) as log:
        log.write({"step": 3, "loss": 0.5, "mfu": None})
        log.write({"step": 3, "eval": "heldout", "itm_accuracy": 0.75})
        log.show(3, "retrieved", np.full((4, 6, 3), 200, np.uint8))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) == {"train/loss", "eval_heldout/itm_accuracy"}
    assert [(event.step, event.value) for event in events.Scalars("eval_heldout/itm_accuracy")] == [(3, 0.75)]
    (picture,) = events.Images("retrieved")
    assert (picture.width, picture.height) == (6, 4)


def test_only_rank_0_talks_and_the_others_warn_with_their_number(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(rank=0)
    logging.getLogger("mmtrain.data").info("50 %% of %s", "it")
    start_logging(rank=3, fields={"host": "n1"})
    logging.getLogger("mmtrain.data").info("hidden")
    logging.getLogger("mmtrain.data").warning("100 % seen")
    assert capsys.readouterr().err == "50 % of it\n[rank 3 host n1] 100 % seen\n"


def test_lines_go_to_the_stderr_of_the_moment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    start_logging(rank=0)
    with (tmp_path / "err").open("w") as other:
        monkeypatch.setattr(sys, "stderr", other)
        logging.getLogger("mmtrain").info("here")
    assert (tmp_path / "err").read_text() == "here\n"


def test_each_line_is_json_by_itself(tmp_path: Path) -> None:
    with RunLog(tmp_path, writes=True) as log:
        log.write({"step": 1, "note": "two\nlines"})
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["note"] == "two\nlines"
