"""Jobs on the emulated cluster: handed in with sbatch, watched, and read."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.doors.launched import ROOT, environment

SITE = {  # what a user writes into slurm/env.sh, for nodes without GPUs and with little room
    "GPUS_PER_NODE": "0", "RANKS_PER_NODE": "2", "FREE_GIB": "0.1", "SHM_GIB": "0.1", "LEAVE_SECONDS": "10",
}  # fmt: skip
STILL = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}
POLL_SECONDS = 0.3


def site(given: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a user of the emulated cluster calls sbatch."""
    kept = {name: value for name, value in environment().items() if name not in ("DS_ACCELERATOR", "PYTHONPATH")}
    return {**kept, **SITE, **given}


@dataclass(frozen=True)
class Job:
    """One job, by its number; its log lies in the folder that it was submitted from."""

    number: str
    folder: Path

    @classmethod
    def submit(cls, script: str, words: Sequence[object], folder: Path, *options: str, **given: str) -> "Job":
        """`sbatch OPTIONS slurm/SCRIPT WORDS`, called in `folder` with the site's variables and `given` ones."""
        command = ["sbatch", "--parsable", *options, ROOT / "slurm" / script, *words]
        done = subprocess.run(
            [str(word) for word in command], cwd=folder, env=site(given), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return cls(done.stdout.strip(), folder)

    def shown(self) -> dict[str, str]:
        """What `scontrol show job` says of it."""
        done = subprocess.run(["scontrol", "show", "job", self.number], capture_output=True, text=True, timeout=60)
        return dict(re.findall(r"(\S+?)=(\S*)", done.stdout))

    def wait_until(self, is_so: Callable[[], Any], seconds: float) -> None:
        """AssertionError, with what the job said, where it takes longer or the job ends before."""
        deadline = time.monotonic() + seconds
        while not is_so():
            state = self.shown()["JobState"]
            assert state in STILL or is_so(), f"the job is {state}\n{self.said()}"
            assert time.monotonic() < deadline, f"nothing in {seconds:g} s\n{self.said()}"
            time.sleep(POLL_SECONDS)

    def wait_for_end(self, seconds: float) -> str:
        """The state in which the job ended."""
        self.wait_until(lambda: self.shown()["JobState"] not in STILL, seconds)
        return self.shown()["JobState"]

    def said(self) -> str:
        """All logs of the job."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("slurm-*.log")))

    def scancel(self, *options: str) -> None:
        """`scancel OPTIONS` on it."""
        subprocess.run(["scancel", *options, self.number], check=True, timeout=60)

    def requeue(self) -> None:
        """`scontrol requeue` from outside."""
        subprocess.run(["scontrol", "requeue", self.number], check=True, timeout=60)


def rows(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of the steps, each step's last: what was lost is done again."""
    log = run_dir / "log.jsonl"
    found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return list({row["step"]: row for row in found if "loss" in row}.values())


def restarts(run_dir: Path) -> list[str]:
    """What restarts.log tells, without the times."""
    return [line.split(": ", 1)[1] for line in (run_dir / "restarts.log").read_text().splitlines()]
