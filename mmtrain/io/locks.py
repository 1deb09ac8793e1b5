"""Advisory file locks: of a process, of a whole file with a time-out, of single bytes of one file. No torch.

| lock        | kind                   | held by                                                        |
|-------------|------------------------|----------------------------------------------------------------|
| RecordLock  | fcntl(2) F_SETLK       | the process: a fork does not inherit it                        |
| file_lock   | flock(2)               | the open file: it ends with the block or with the process      |
| byte_lock   | fcntl(2) F_OFD_SETLKW  | the open file: one file serves any number of independent locks |

A record lock goes as soon as its process closes *any* descriptor of the file: open a locked file nowhere else.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import BinaryIO

from mmtrain.io.errors import StorageError

POLL_SECONDS = 0.1
HELD = (errno.EACCES, errno.EAGAIN)
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_FLOCK = Struct("hhqqi0q")  # struct flock of fcntl(2)


class LockHeldError(StorageError):
    """Somebody else holds the lock; `owner` is what they have written into the file."""

    def __init__(self, path: Path, owner: str = "") -> None:
        super().__init__(f"{path} is locked" + (f" by {owner}" if owner else ""))
        self.owner = owner


class RecordLock:
    """An exclusive lock of this process on a file that says who holds it, until `release` or the process's end."""

    def __init__(self, path: Path, owner: str) -> None:
        """Take the lock or raise LockHeldError; OSError where the file cannot be written.

        `is_held` is False where the file system knows no locks.
        """
        self._file: BinaryIO | None = path.open("a+b")
        try:
            self.is_held = self._take(path)
            self._file.truncate(0)
            self._file.write(owner.encode() + b"\n")
            self._file.flush()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let go of the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, path: Path) -> bool:
        if self._file is None:
            raise RuntimeError("the lock file is closed")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                self._file.seek(0)
                raise LockHeldError(path, self._file.read().decode(errors="replace").strip()) from None
            if error.errno not in UNSUPPORTED:
                raise
            return False
        return True


@contextmanager
def file_lock(path: Path, *, shared: bool = False, timeout_seconds: float | None = None) -> Iterator[None]:
    """Hold a lock on the file at `path`, which is made if it is missing; LockHeldError after `timeout_seconds`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        if timeout_seconds is None:
            fcntl.flock(descriptor, kind)
        else:
            _poll_lock(descriptor, kind, path, time.monotonic() + timeout_seconds)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process forked meanwhile has the same open file
    finally:
        os.close(descriptor)


@contextmanager
def byte_lock(path: Path, byte: int) -> Iterator[None]:
    """Hold an exclusive lock on one byte of the file at `path`, however far behind its end; waits for others."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        try:
            yield
        finally:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, 1, 0))
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file for as long as it is open; False where somebody else holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _poll_lock(descriptor: int, kind: int, path: Path, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise LockHeldError(path) from None
        time.sleep(POLL_SECONDS)
