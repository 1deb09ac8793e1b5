"""What stands in status.json: one ending for each attempt, and the first word on it is the one that stays."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmtrain.config.load import ConfigError
from mmtrain.monitor.claim import Claim, _count_attempts
from mmtrain.monitor.status import BEAT_SECONDS, RunStatus, read_status
from mmtrain.parallel.launch import Launch, Preempted, RunStopped

FIELDS = {"state", "reason", "step", "num_steps", "attempt", "can_resume", "updated", "host", "pid"}


def status_of(run_dir: Path, rank: int = 0, attempt: int = 0) -> RunStatus:
    launch = Launch(rank=rank, local_rank=rank, world_size=2, local_world_size=2, node=f"node-{rank}")
    return RunStatus(run_dir, launch, attempt=attempt, num_steps=10)


def said(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "status.json").read_text())


def test_a_running_run_says_where_it_stands_and_who_it_is(tmp_path: Path) -> None:
    status_of(tmp_path, attempt=2).running(4)
    assert set(said(tmp_path)) == FIELDS
    found = {name: said(tmp_path)[name] for name in FIELDS - {"updated", "reason"}}
    assert found == {
        "state": "running", "step": 4, "num_steps": 10, "attempt": 2, "can_resume": True, "host": "node-0",
        "pid": os.getpid(),
    }  # fmt: skip


def test_it_is_not_written_at_every_step(tmp_path: Path) -> None:
    assert BEAT_SECONDS > 5
    status = status_of(tmp_path)
    for step in range(3):
        status.running(step)
    assert said(tmp_path)["step"] == 0
    status.running(3, at_once=True)
    assert said(tmp_path)["step"] == 3


def test_only_the_first_rank_says_that_it_runs(tmp_path: Path) -> None:
    status_of(tmp_path, rank=1).running(4)
    assert read_status(tmp_path) is None


def test_the_rank_that_fails_first_has_the_word_and_those_that_lost_it_do_not_write_over_it(tmp_path: Path) -> None:
    first, second = status_of(tmp_path), status_of(tmp_path, rank=1)
    first.running(3)
    second.running(3)
    with pytest.raises(RunStopped), second.telling((RunStopped,)):
        raise RunStopped("shard 7 is broken")
    with pytest.raises(RuntimeError), first.telling((RunStopped,)):
        raise RuntimeError("Connection closed by peer")
    first.running(4, at_once=True)  # a beat that was on its way does not either
    assert said(tmp_path)["state"] == "failed" and said(tmp_path)["reason"] == "shard 7 is broken"
    assert said(tmp_path)["step"] == 3 and said(tmp_path)["host"] == "node-1"


@pytest.mark.parametrize(
    ("error", "state", "reason", "can_resume"),
    [
        (Preempted(12, 5), "preempted", "preempted by signal SIGUSR2 at step 5", True),
        (RunStopped("no"), "failed", "no", False),
        (ValueError("odd\nand more"), "failed", "rank 0 failed: ValueError: odd", True),
        (RuntimeError("reset by peer"), "failed", "rank 0 stopped while the ranks came together: another rank", True),
        (KeyboardInterrupt(), "failed", "interrupted", True),
    ],
    ids=["preempted", "refused", "an error of its own", "a lost rank", "interrupted"],
)
def test_every_ending_has_its_reason(
    error: BaseException, state: str, reason: str, can_resume: bool, tmp_path: Path
) -> None:
    with pytest.raises(type(error)), status_of(tmp_path).telling((RunStopped,)):
        raise error
    found = said(tmp_path)
    assert (found["state"], found["can_resume"]) == (state, can_resume) and found["reason"].startswith(reason)


def test_a_run_that_comes_to_its_end_is_complete(tmp_path: Path) -> None:
    with status_of(tmp_path).telling(()):
        pass
    assert said(tmp_path)["state"] == "completed" and not said(tmp_path)["can_resume"]


def test_a_folder_that_cannot_be_written_hides_no_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RunStopped, match="no"), status_of(tmp_path / "gone" / "far").telling((RunStopped,)):
        raise RunStopped("no")


def test_attempts_are_counted_also_after_a_kill(tmp_path: Path) -> None:
    assert _count_attempts(tmp_path) == 0
    status_of(tmp_path).running(0)  # killed: no ending
    assert _count_attempts(tmp_path) == 1
    status_of(tmp_path, attempt=1).end("failed", "no", can_resume=True)
    assert _count_attempts(tmp_path) == 2


HOLD = """
import os, sys, time
from pathlib import Path
from mmtrain.monitor.claim import Claim
claim = Claim(Path(sys.argv[1]), "node-7")
child = os.fork()  # as readers are
if child:
    print(child, flush=True)
time.sleep(60)
"""


def test_a_folder_that_a_live_run_holds_is_refused_until_that_process_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    child = int(other.stdout.readline())
    try:
        with pytest.raises(ConfigError, match=rf"held by a run that is alive \(node-7, process {other.pid}, since"):
            Claim(tmp_path / "run", "node-0")
        other.kill()
        other.wait(30)
        Claim(tmp_path / "run", "node-0").release()  # its forked child is still there
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_folder_without_write_permission_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written to"):
        Claim(tmp_path / "file" / "run", "node-0")
