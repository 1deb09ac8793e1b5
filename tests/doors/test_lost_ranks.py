"""One of two ranks dies or hangs amid a run: the other ends with an error in time, whoever launched them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.doors.conftest import Prepared
from tests.doors.launched import LIMIT_SECONDS, ROOT, environment
from tests.helpers import free_port

TIMEOUT_SECONDS = 20  # of the ranks' collectives; ranks also come together within it, on a busy machine too
LAUNCHER_SECONDS = 10  # that a rank gives a launcher to end it
SLACK_SECONDS = 120  # for a busy machine
LAUNCHERS = {
    "torchrun": ["torchrun", "--nproc-per-node", "2", "--master-port", "{port}", "-m", "mmtrain.pretrain"],
    "deepspeed": ["deepspeed", "--num_accelerators", "2", "--master_port", "{port}", "mmtrain/pretrain.py"],
}


def start(command: Sequence[str], **variables: str) -> subprocess.Popen[str]:
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment() | variables, start_new_session=True, **pipe)


def start_plain(rank: int, port: int, words: Sequence[str]) -> subprocess.Popen[str]:
    """One of two ranks with nobody above it."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return start([sys.executable, "mmtrain/pretrain.py", *words], **place)


def words_of(prepared: Prepared, folder: Path, *more: str) -> list[str]:
    limit = f"parallel.timeout_seconds={TIMEOUT_SECONDS}"
    return [
        "--config",
        str(prepared.config),
        f"run_dir={folder}/run",
        "train.num_steps=100000",
        "eval.every=0",
        limit,
        *more,
    ]


def wait_for_steps(folder: Path, num_steps: int, programs: Sequence[subprocess.Popen[str]]) -> None:
    log, deadline = folder / "run" / "log.jsonl", time.monotonic() + LIMIT_SECONDS
    while not log.exists() or len(log.read_text().splitlines()) < num_steps:
        ended = [program for program in programs if program.poll() is not None]
        assert not ended and time.monotonic() < deadline, ended[0].communicate()[0] if ended else "no step in time"
        time.sleep(0.1)


def environ_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def children_of(pid: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(place.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def descendants_of(pid: int) -> list[int]:
    """Nearest first."""
    found = children_of(pid)
    for child in found:
        found += children_of(child)
    return found


def end_all(programs: Sequence[subprocess.Popen[str]]) -> None:
    """Whatever a test left behind of what it started."""
    for program in programs:
        for pid in [*descendants_of(program.pid), program.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        program.communicate()


def ended_as(folder: Path) -> dict[str, Any]:
    """What status.json says of a run that failed."""
    status = json.loads((folder / "run" / "status.json").read_text())
    assert status["state"] == "failed", status
    return status


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_rank_that_is_killed_ends_the_whole_job(launcher: str, prepared: Prepared, tmp_path: Path) -> None:
    command = [word.format(port=free_port()) for word in LAUNCHERS[launcher]]
    program = start([*command, *words_of(prepared, tmp_path)])
    try:
        wait_for_steps(tmp_path, 2, [program])
        ranks = descendants_of(program.pid)
        second = next(pid for pid in ranks if b"RANK=1" in environ_of(pid))
        os.kill(second, signal.SIGKILL)
        said, _ = program.communicate(timeout=TIMEOUT_SECONDS + LAUNCHER_SECONDS + SLACK_SECONDS)
        assert program.returncode != 0, said
        alive = [pid for pid in ranks if any(word.startswith(b"RANK=") for word in environ_of(pid))]
        assert alive == []
        assert ended_as(tmp_path)["reason"].startswith("rank 0 stopped in step")
    finally:
        end_all([program])


@pytest.mark.parametrize(
    ("blow", "reason"),
    [
        (signal.SIGKILL, "by peer"),  # the connection closes, and gloo says so at once
        (signal.SIGSTOP, "Timed out waiting"),  # nothing closes: only the timeout tells
    ],
    ids=["killed", "hung"],
)
def test_a_rank_alone_says_at_which_step_it_lost_the_other(
    blow: signal.Signals, reason: str, prepared: Prepared, tmp_path: Path
) -> None:
    port = free_port()
    ranks = [start_plain(rank, port, words_of(prepared, tmp_path)) for rank in range(2)]
    try:
        wait_for_steps(tmp_path, 2, ranks)
        ranks[1].send_signal(blow)
        said, _ = ranks[0].communicate(timeout=TIMEOUT_SECONDS + LAUNCHER_SECONDS + SLACK_SECONDS)
        num_steps = len((tmp_path / "run" / "log.jsonl").read_text().splitlines())
        (sentence,) = [line for line in said.splitlines() if line.startswith("mmtrain: ")]
        assert sentence.startswith(f"mmtrain: rank 0 stopped in step {num_steps + 1}: another rank ended"), said
        assert reason in sentence and "Traceback" not in said, said
        assert ranks[0].returncode == 3
        assert f"mmtrain: {ended_as(tmp_path)['reason']}" == sentence
    finally:
        end_all(ranks)


def test_ranks_of_different_configs_all_end_with_one_sentence(prepared: Prepared, tmp_path: Path) -> None:
    port = free_port()
    ranks = [start_plain(rank, port, words_of(prepared, tmp_path, f"train.weight_decay=0.{rank}")) for rank in range(2)]
    try:
        said = [rank.communicate(timeout=LIMIT_SECONDS)[0] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [2, 2], said
        assert said[0].count("mmtrain: step 1 was not taken: the ranks do not agree on their config") == 1, said[0]
        assert "mmtrain: " not in said[1] and not any("Traceback" in one for one in said), said
        assert "do not agree on their config" in ended_as(tmp_path)["reason"]
        assert not any(json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    finally:
        end_all(ranks)
