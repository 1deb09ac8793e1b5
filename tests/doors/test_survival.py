"""What runs do about planted troubles: hangs, losses that leap or are no numbers, a rank that fails, a held folder."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.doors.conftest import Prepared
from tests.doors.launched import LIMIT_SECONDS, Ended, launch, run_program
from tests.doors.test_lost_ranks import children_of, end_all, free_port, start, wait_for_steps, words_of

GLOBAL_BATCH_SIZE = 16
PLANT = f"""
import os, sys
from dataclasses import replace
from mmtrain.data.stream import Stream
from mmtrain.engine.parallel import ParallelEngine
trouble, number = sys.argv[1], int(sys.argv[2])
step, accumulate, evaluate, start = (
    ParallelEngine.step, ParallelEngine.accumulate, ParallelEngine.evaluate, Stream.__init__
)
meets = lambda batches: int(batches[0].places_B.min()) // {GLOBAL_BATCH_SIZE} == number
def leaping(self, batches):
    report = step(self, batches)
    return replace(report, losses=report.losses | {{"loss": 1e3}}) if meets(batches) else report
def not_finite(self, batches):
    found = accumulate(self, batches)
    if meets(batches) and int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
        found[-1]["loss"] *= float("nan")
    return found
def failing(self):
    if os.environ["RANK"] == "1":
        raise ValueError("planted")
    return evaluate(self)
def without(self, *args, **knobs):
    start(self, *args, **knobs)
    self.leave_out(range(number * {GLOBAL_BATCH_SIZE}, (number + 1) * {GLOBAL_BATCH_SIZE}))
if trouble == "leaps":
    ParallelEngine.step = leaping
elif trouble == "not finite":
    ParallelEngine.accumulate = not_finite
elif trouble == "fails":
    ParallelEngine.evaluate = failing
elif trouble == "left out":
    Stream.__init__ = without
from mmtrain.pretrain import main
sys.exit(main(sys.argv[3:]))
"""


def planted(trouble: str, number: int, words: Sequence[object]) -> Ended:
    return run_program([sys.executable, "-c", PLANT, trouble, number, *words])


def start_ranks(command: Sequence[str], number: int = 2) -> list[subprocess.Popen[str]]:
    """Ranks with nobody above them."""
    place = {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [start(command, **place, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(number)]


def alone(prepared: Prepared, run_dir: Path, *more: str) -> list[object]:
    return ["--config", prepared.config, f"run_dir={run_dir}", "train.micro_batch_size=16", "eval.every=0", *more]


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line, parse_constant=pytest.fail) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if "eval" not in row]


def status_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "status.json").read_text())


def manifest_of(run_dir: Path) -> dict[str, Any]:
    latest = (run_dir / "checkpoints" / "latest").read_text().strip()
    return json.loads((run_dir / "checkpoints" / latest / "manifest.json").read_text())


def test_a_hang_is_ended_by_the_watchdog_with_the_stacks_of_every_rank(prepared: Prepared, tmp_path: Path) -> None:
    words = words_of(prepared, tmp_path, "survival.step_timeout_seconds=15", "parallel.timeout_seconds=300")
    ranks = start_ranks([sys.executable, "mmtrain/pretrain.py", *words])
    try:
        wait_for_steps(tmp_path, 2, ranks)
        _, reader = sorted(children_of(ranks[1].pid))  # the first writes its saves
        os.kill(reader, signal.SIGSTOP)  # its trainer waits for samples, and the other rank for that one
        said = [rank.communicate(timeout=LIMIT_SECONDS)[0] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [75, 75], said
        stacks = [(tmp_path / "run" / "stacks" / f"rank-{rank}.txt").read_text() for rank in range(2)]
        assert "in take" in stacks[1] and "in _hear" in stacks[1], stacks[1]
        assert "in step" in stacks[0] and "in take" not in stacks[0], stacks[0]
        assert all(f"mmtrain: watchdog: rank {rank} was over step" in said[rank] for rank in range(2)), said
        status = status_of(tmp_path / "run")
        assert status["state"] == "failed" and status["reason"].startswith("watchdog: rank"), status
        assert status["can_resume"]
    finally:
        end_all(ranks)


@pytest.mark.parametrize(
    ("num_ranks", "knobs"),
    [
        (1, ["train.micro_batch_size=16"]),
        pytest.param(2, ["zero.gather=per_use"], marks=pytest.mark.long),
        pytest.param(2, ["zero.gather=per_step", "precision=bf16"], marks=pytest.mark.long),
        pytest.param(2, ["zero.stage=1"], marks=pytest.mark.long),
        pytest.param(2, ["parallel.pp=2"], marks=pytest.mark.long),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_leap_is_rolled_back_and_the_run_is_as_if_those_samples_had_never_been_there(
    num_ranks: int, knobs: list[str], prepared: Prepared, tmp_path: Path
) -> None:
    knobs = [*knobs, "train.num_steps=10", "eval.every=0", "checkpoint.save_every=3", "survival.spike_window=4"]
    found = {}
    for trouble, policy in (("left out", "warn"), ("leaps", "roll_back")):
        run_dir = tmp_path / policy
        words = ["--config", str(prepared.config), f"run_dir={run_dir}", f"survival.spike_policy={policy}", *knobs]
        ranks = start_ranks([sys.executable, "-c", PLANT, trouble, "7", *words], num_ranks)
        try:
            said = [rank.communicate(timeout=LIMIT_SECONDS)[0] for rank in ranks]
        finally:
            end_all(ranks)
        assert [rank.returncode for rank in ranks] == [0] * num_ranks, said
        found[policy] = (
            [(row["step"], row["loss"], row["grad_norm"], row["lr"]) for row in rows_of(run_dir)],
            manifest_of(run_dir)["stream"],
        )
    assert "step 8: the loss leapt to 1000" in said[0] and "going on after step 6" in said[0]
    assert found["roll_back"] == found["warn"] and len(found["warn"][0]) == 10
    assert found["warn"][1]["left_out"] == [7]


def test_a_loss_that_is_no_number_is_left_out_and_counted(prepared: Prepared, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    ended = planted("not finite", 2, alone(prepared, run_dir, "train.warmup_steps=4"))
    assert ended.code == 0, ended.said
    rows = rows_of(run_dir)
    assert [row["skipped"] for row in rows] == [0, 0, 1, 1] and rows[2]["grad_norm"] is None
    assert rows[3]["lr"] == rows[2]["lr"] != rows[1]["lr"]  # the schedule follows the moves
    assert (
        "step 3 was left out: a loss or gradient is no finite number (1 in a row); its samples: place 32 ("
        in ended.said
    )


@pytest.mark.long
def test_too_many_of_them_end_every_rank_with_one_sentence_that_names_the_samples(
    prepared: Prepared, tmp_path: Path
) -> None:
    words = words_of(prepared, tmp_path, "survival.max_skipped_in_a_row=0")
    ranks = start_ranks([sys.executable, "-c", PLANT, "not finite", "2", *words])
    try:
        said = [rank.communicate(timeout=LIMIT_SECONDS)[0] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [2, 2], said
        assert said[0].count("mmtrain: step 3 is number 1 in a row") == 1 and "mmtrain: " not in said[1], said
        status = status_of(tmp_path / "run")
        # Rank 1 met it, in the second half of the batch.
        assert "its samples: place 40 (" in status["reason"] and not status["can_resume"], status
    finally:
        end_all(ranks)


def test_one_rank_that_fails_while_it_scores_ends_the_other_and_its_reason_stands(
    prepared: Prepared, tmp_path: Path
) -> None:
    words = words_of(prepared, tmp_path, "eval.every=2", "parallel.timeout_seconds=300")
    ranks = start_ranks([sys.executable, "-c", PLANT, "fails", "0", *words])
    try:
        ranks[1].communicate(timeout=LIMIT_SECONDS)
        said, _ = ranks[0].communicate(timeout=LIMIT_SECONDS)
        # It heard of the closed connection: the time-out of its collectives is longer than this test waits.
        assert ranks[0].returncode == 3 and "Timed out" not in said, said
        status = status_of(tmp_path / "run")
        assert status["reason"] == "rank 1 failed in step 3: ValueError: planted" and status["step"] == 2, status
    finally:
        end_all(ranks)


@pytest.mark.parametrize("launcher", ["python", pytest.param("torchrun", marks=pytest.mark.long)])
def test_a_folder_that_a_live_run_holds_is_refused(launcher: str, prepared: Prepared, tmp_path: Path) -> None:
    words = words_of(prepared, tmp_path)
    other = start([sys.executable, "mmtrain/pretrain.py", *words])
    try:
        wait_for_steps(tmp_path, 2, [other])
        before = (tmp_path / "run" / "config.yaml").stat().st_mtime_ns
        ended = launch(launcher, "pretrain", words)
        assert ended.code == (2 if launcher == "python" else 1), ended.said
        assert f"is held by a run that is alive ({os.uname().nodename}, process {other.pid}, since" in ended.said
        assert ended.said.count("mmtrain: ") == 1, ended.said
        assert status_of(tmp_path / "run")["state"] == "running" and other.poll() is None
        assert (tmp_path / "run" / "config.yaml").stat().st_mtime_ns == before
    finally:
        end_all([other])
