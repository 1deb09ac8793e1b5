"""A run that waits at a named moment of a save while a file says so: `-m tests.doors.held_run MODULE ARGUMENTS`.

Only renames are looked at, so whatever writes the files of a checkpoint, the moment is the same.
"""

import os
import re
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOLD_FILE = "HOLD_FILE"  # environment variable: while this file names a phase, the run waits in it
WRITING, RENAMED = "while files are written", "between the rename and latest"
CHECKPOINT = re.compile(r"step-\d{8}")
POLL_SECONDS = 0.01


def phase_before(target: object) -> str | None:
    """The phase that ends when something gets the name `target`."""
    name = os.path.basename(os.fspath(target))  # type: ignore[arg-type]
    return RENAMED if name == "latest" else WRITING if CHECKPOINT.fullmatch(name) else None


def held(rename: Callable[..., Any]) -> Callable[..., Any]:
    """`rename` that waits first."""

    def waiting(source: object, target: object, **names: Any) -> Any:
        phase, hold = phase_before(target), Path(os.environ[HOLD_FILE])
        while phase and hold.exists() and hold.read_text() == phase:
            time.sleep(POLL_SECONDS)
        return rename(source, target, **names)

    return waiting


if __name__ == "__main__":
    os.replace, os.rename = held(os.replace), held(os.rename)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
