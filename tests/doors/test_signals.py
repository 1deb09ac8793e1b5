"""A signal to the rank processes of a run: all save at one step, end, and say so."""

import json
import os
import signal
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

SAME = ("step", "loss", "loss_mlm", "loss_itc", "loss_itm", "loss_lm", "grad_norm", "lr", "samples", "skipped")
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


@pytest.mark.parametrize("launcher", ["torchrun", pytest.param("deepspeed", marks=pytest.mark.long)])
def test_a_signal_to_every_process_of_a_rank_saves_under_either_launcher(
    launcher: str, prepared: Prepared, tmp_path: Path
) -> None:
    command = [word.format(port=free_port()) for word in LAUNCHERS[launcher]]
    program = start([*command, *words_of(prepared, tmp_path)])
    try:
        wait_for_steps(tmp_path, 2, [program])
        ranks = [pid for pid in descendants_of(program.pid) if any(w.startswith(b"RANK=") for w in environ_of(pid))]
        assert len(ranks) == 6  # two trainers, and of each a reader and what writes its saves
        for pid in ranks:
            os.kill(pid, signal.SIGUSR2)
        said, _ = program.communicate(timeout=LIMIT_SECONDS)
        assert program.returncode == EXIT_CODES[launcher], said
        saved_at(tmp_path / "run")
        assert "preempted by signal SIGUSR2" in said, said
    finally:
        end_all([program])


@pytest.mark.long
def test_a_run_that_was_preempted_and_started_again_is_one_that_never_was(prepared: Prepared, tmp_path: Path) -> None:
    rows, states = {}, {}
    for name in ("undisturbed", "preempted"):
        words = words_of(prepared, tmp_path / name, "train.num_steps=60")
        attempts, codes = 0, [75]
        while 75 in codes:
            port = free_port()
            ranks = [start_plain(rank, port, words) for rank in range(2)]
            try:
                if name == "preempted" and attempts < 2:
                    wait_for_steps(tmp_path / name, 5 + 20 * attempts, ranks)
                    ranks[attempts].send_signal(signal.SIGUSR2)
                said = [rank.communicate(timeout=LIMIT_SECONDS)[0] for rank in ranks]
            finally:
                end_all(ranks)
            attempts, codes = attempts + 1, [rank.returncode for rank in ranks]
        run_dir = tmp_path / name / "run"
        assert codes == [0, 0], said
        assert attempts == (3 if name == "preempted" else 1), said
        status = json.loads((run_dir / "status.json").read_text())
        assert status["state"] == "completed" and status["attempt"] == attempts - 1
        found = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
        rows[name] = [{key: row[key] for key in SAME} for row in found if "eval" not in row]
        latest = (run_dir / "checkpoints" / "latest").read_text().strip()
        states[name] = json.loads((run_dir / "checkpoints" / latest / "manifest.json").read_text())["stream"]
    assert rows["preempted"] == rows["undisturbed"] and len(rows["preempted"]) == 60
    assert states["preempted"] == states["undisturbed"]
    assert states["preempted"]["order_hash"]
