"""The programs as users launch them, each run to its end in a process group of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import free_port

ROOT = Path(__file__).parents[2]
LAUNCHERS = ("python", "torchrun", "deepspeed")
LIMIT_SECONDS = 180


@dataclass(frozen=True)
class Ended:
    """How a program ended, and all that it said."""

    code: int
    said: str  # standard output and standard error as they came
    seconds: float


def environment() -> dict[str, str]:
    """What `make` sets for a program, without what this test run itself was launched with."""
    import torch

    launched = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in launched}
    folders = [str(Path(sys.executable).parent), kept.get("PATH", "")]
    kept |= {"PATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    # The checkout under test, also where another one is installed.
    kept["PYTHONPATH"] = str(ROOT)
    return kept if torch.cuda.is_available() else kept | {"DS_ACCELERATOR": "cpu"}


def run_program(command: Sequence[object], limit_seconds: float = LIMIT_SECONDS) -> Ended:
    """Run `command` to its end; one that hangs is ended with all its processes, and is an error."""
    started = time.monotonic()
    program = subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = program.communicate(timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        said, _ = program.communicate()
        raise AssertionError(f"{command} did not end in {limit_seconds:g} s; it said:\n{said}") from None
    return Ended(program.returncode, said, time.monotonic() - started)


def launch(launcher: str, door: str, words: Sequence[object], limit_seconds: float = LIMIT_SECONDS) -> Ended:
    """A door under `python` (one process), `torchrun` or `deepspeed` (two)."""
    starts = {
        "python": [sys.executable, f"mmtrain/{door}.py"],
        "torchrun": ["torchrun", "--nproc-per-node", 2, "--master-port", free_port(), "-m", f"mmtrain.{door}"],
        "deepspeed": ["deepspeed", "--num_accelerators", 2, "--master_port", free_port(), f"mmtrain/{door}.py"],
    }
    return run_program([*starts[launcher], *words], limit_seconds)
