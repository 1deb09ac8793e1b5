"""Bounds of one test case: CPU time, which a busy machine does not change, and memory. Linux only."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def bounds(cpu_seconds: float, memory_bytes: int) -> Iterator[None]:
    """AssertionError where the block takes more CPU time in this process, or its memory grows by more at its peak."""

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"a case took more than {cpu_seconds:g} s of CPU time")

    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _memory_bytes("VmRSS")
    handler = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
    added = _memory_bytes("VmHWM") - before
    assert added < memory_bytes, f"a case took {added >> 20} MiB of memory"


def _memory_bytes(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10
