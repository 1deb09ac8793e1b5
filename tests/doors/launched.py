"""The programs as users launch them, each run to its end in a process group of its own."""

import atexit
import contextlib
import logging
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.helpers import free_port, fresh_processes

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
    """A command under `python` (one process), `torchrun` or `deepspeed` (two).

    `preloaded` is a process as `python` gives, forked off one that has torch, DeepSpeed and Megatron imported: what
    only they cost, six seconds a process, is paid once. So it is no test of how a program starts.
    """
    if launcher == "preloaded":
        return _run_preloaded([f"mmtrain/{door}.py", *map(str, words)], limit_seconds)
    starts = {
        "python": [sys.executable, f"mmtrain/{door}.py"],
        "torchrun": ["torchrun", "--nproc-per-node", 2, "--master-port", free_port(), "-m", f"mmtrain.{door}"],
        "deepspeed": ["deepspeed", "--num_accelerators", 2, "--master_port", free_port(), f"mmtrain/{door}.py"],
    }
    return run_program([*starts[launcher], *words], limit_seconds)


def _run_preloaded(argv: list[str], limit_seconds: float) -> Ended:
    started = time.monotonic()
    with tempfile.NamedTemporaryFile("r", errors="backslashreplace", prefix="said-") as said:
        context = fresh_processes()
        program = context.Process(target=_program, args=(argv, environment(), said.name))
        program.start()
        program.join(limit_seconds)
        if program.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid or 0, signal.SIGKILL)
            program.kill()
            program.join()
            raise AssertionError(f"{argv} did not end in {limit_seconds:g} s; it said:\n{said.read()}")
        return Ended(program.exitcode or 0, said.read(), time.monotonic() - started)


def _program(argv: list[str], variables: dict[str, str], said: str) -> NoReturn:
    """In the forked process: become the program, with its exit code."""
    os.setsid()
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(variables)
    output = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115 - until it ends
    sys.argv = argv
    torch = sys.modules["torch"]
    torch.set_num_threads(int(variables["OMP_NUM_THREADS"]))  # which an interpreter that starts anew reads
    logging.root.handlers.clear()
    code = 1
    try:
        runpy.run_path(argv[0], run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]  # what else an interpreter does before it ends
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
