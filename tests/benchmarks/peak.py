"""The most memory that a process held while something ran."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Large blocks go back to the system at once, so that what is resident is what is held. Read by glibc at start.
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


def resident_bytes(which: str = "VmRSS") -> int:
    """What is resident now, or with `VmHWM` the most since `peak_bytes` was last called. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = (line.split()[1] for line in lines if line.startswith(f"{which}:"))
    return int(found) * 1024


def settled_bytes() -> int:
    """What is resident after freed memory went back to the system."""
    import gc

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes()


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most that was resident while `work` ran."""
    Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak so far
    work()
    return resident_bytes("VmHWM")


def give_back_at_once() -> None:
    """To be called before processes start: they inherit it."""
    os.environ.update(GIVES_BACK)
