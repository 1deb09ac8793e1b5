"""Fault injection: the n-th call that changes a disk fails, or is the last one that the process makes."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

# Calls of the os module that change what is on a disk and can fail for want of room or a broken device.
CALLS = ("replace", "rename", "link", "fsync", "mkdir")
KILLED = 57  # exit code of a process that was ended on purpose


class Fault:
    """What happens at the `nth` call, from 0; `hit` says whether it came to that."""

    def __init__(self, nth: int, *, kill: bool = False, number: int = errno.ENOSPC) -> None:
        self.nth, self.kill, self.number, self.count, self.hit = nth, kill, number, 0, False

    def strike(self) -> None:
        """Count a call; end the process or raise at the one that is meant."""
        self.count += 1
        if self.count - 1 == self.nth:
            self.hit = True
            if self.kill:
                os._exit(KILLED)
            raise OSError(self.number, os.strerror(self.number))


class _File:
    """A file of which every write may be the one that fails, with half of it written."""

    def __init__(self, file: BinaryIO, fault: Fault) -> None:
        self._file, self._fault = file, fault

    def write(self, content: bytes) -> int:
        half = memoryview(content)[: len(content) // 2]
        self._file.write(half)
        self._file.flush()
        self._fault.strike()
        return len(half) + self._file.write(memoryview(content)[len(half) :])

    def flush(self) -> None:
        self._fault.strike()
        self._file.flush()

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def injected(fault: Fault) -> Iterator[Fault]:
    """`fault` for all calls of this process inside the block."""
    kept = {name: getattr(os, name) for name in (*CALLS, "open", "fdopen")}

    def counted(name: str) -> Callable[..., Any]:
        def call(*words: Any, **options: Any) -> Any:
            fault.strike()
            return kept[name](*words, **options)

        return call

    def opened(path: Any, flags: int, *words: Any, **options: Any) -> int:
        if flags & os.O_CREAT and not os.path.lexists(path):
            fault.strike()
        return kept["open"](path, flags, *words, **options)

    def fdopened(descriptor: int, *words: Any, **options: Any) -> Any:
        file = kept["fdopen"](descriptor, *words, **options)
        return _File(file, fault) if "w" in file.mode else file

    try:
        for name in CALLS:
            setattr(os, name, counted(name))
        os.open, os.fdopen = opened, fdopened
        yield fault
    finally:
        for name, call in kept.items():
            setattr(os, name, call)


def run_killed(work: Callable[[], object], nth: int) -> bool:
    """Run `work` in a forked process that ends at the `nth` call; whether it came to that."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            with injected(Fault(nth, kill=True)):
                work()
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, KILLED), code
    return code == KILLED
