"""A signal to the rank processes of a run: all save at one step, end, and say so."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.doors.conftest import Prepared
from tests.doors.launched import LIMIT_SECONDS
from tests.doors.test_lost_ranks import (
    LAUNCHERS,
    descendants_of,
    end_all,
    environ_of,
    free_port,
    start,
    start_plain,
    wait_for_steps,
    words_of,
)

EXIT_CODES = {"torchrun": 1, "deepspeed": 75}  # torchrun has no other code for a rank that ended itself


def saved_at(run_dir: Path) -> int:
    status = json.loads((run_dir / "status.json").read_text())
    assert status["state"] == "preempted" and status["can_resume"] and status["attempt"] == 0, status
    steps = [json.loads(line)["step"] for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert status["step"] == steps[-1] and f"step-{steps[-1]:08d}" in (run_dir / "checkpoints" / "latest").read_text()
    return steps[-1]


def test_a_signal_to_one_of_two_ranks_ends_both_at_one_step_with_exit_code_75(
    prepared: Prepared, tmp_path: Path
) -> None:
    port = free_port()
    ranks = [start_plain(rank, port, words_of(prepared, tmp_path)) for rank in range(2)]
    try:
        wait_for_steps(tmp_path, 2, ranks)
        ranks[1].send_signal(signal.SIGUSR2)
        ranks[1].send_signal(signal.SIGTERM)  # a second one breaks nothing
        said = [rank.communicate(timeout=LIMIT_SECONDS)[0] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [75, 75], said
        step = saved_at(tmp_path / "run")
        sentence = f"mmtrain: preempted by signal SIGUSR2 at step {step}; the same command goes on from there"
        assert sentence in said[0] and "mmtrain: " not in said[1] and "Traceback" not in said[0] + said[1], said
    finally:
        end_all(ranks)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_signal_to_every_process_of_a_rank_saves_under_either_launcher(
    launcher: str, prepared: Prepared, tmp_path: Path
) -> None:
    command = [word.format(port=free_port()) for word in LAUNCHERS[launcher]]
    program = start([*command, *words_of(prepared, tmp_path)])
    try:
        wait_for_steps(tmp_path, 2, [program])
        ranks = [pid for pid in descendants_of(program.pid) if any(w.startswith(b"RANK=") for w in environ_of(pid))]
        assert len(ranks) == 4  # two trainers, and a reader of each
        for pid in ranks:
            os.kill(pid, signal.SIGUSR2)
        started = time.monotonic()
        said, _ = program.communicate(timeout=LIMIT_SECONDS)
        assert program.returncode == EXIT_CODES[launcher], said
        saved_at(tmp_path / "run")
        assert time.monotonic() - started < 60, said
        assert "preempted by signal SIGUSR2" in said, said
    finally:
        end_all([program])
