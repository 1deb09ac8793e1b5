"""A local folder for what was read of remote shards, bounded in bytes, shared by all processes of it. No torch."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct

from mmtrain.data.faults import DataError

LOCK_FILE = "entries.lock"  # an entry's lock is one byte of it, far behind its end
FLOCK = Struct("hhqqi0q")  # struct flock of fcntl(2)
KEPT_SHARE = 0.9  # of the bound, after room was made: so that not every entry has to make room
TOTAL_NAME, ENTRIES = "total", "entries"


class Cache:
    """Files by name, filled when first asked for; those used longest ago go when `max_bytes` would be passed."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = Path(folder), max_bytes
        try:
            (self.folder / ENTRIES).mkdir(parents=True, exist_ok=True)
            with self._locked("room"):
                self._set_total(self._make_room(0))
        except OSError as error:
            raise DataError(f"data.cache_dir is {str(folder)!r}, which cannot be written: {error.strerror}") from error

    def open(self, name: str, fill: Callable[[Path], None]) -> int:
        """A descriptor of the entry `name`, made by `fill`, which writes a file at the path it is given, if missing.

        The caller closes it; an entry that goes meanwhile can still be read through it. DataError where one
        entry alone is larger than the bound.
        """
        path = self._path(name)
        if (descriptor := _opened(path)) is not None:
            return descriptor
        with self._filling(path):
            if (descriptor := _opened(path)) is not None:  # another process was faster
                return descriptor
            partial = self.folder / f"partial-{os.getpid()}-{path.name}"
            try:
                fill(partial)
                return self._enter(partial, path, name)
            finally:
                partial.unlink(missing_ok=True)

    def holds(self, name: str) -> bool:
        """Whether the entry `name` is there now."""
        return self._path(name).exists()

    def _enter(self, partial: Path, path: Path, name: str) -> int:
        size = partial.stat().st_size
        if size > self.max_bytes:
            raise DataError(f"{name} is {size} bytes long; set data.cache_bytes ({self.max_bytes}) to more than that")
        with self._locked("room"):
            total = self._total()
            if total + size > self.max_bytes:
                total = self._make_room(size)
            descriptor = os.open(partial, os.O_RDONLY)
            os.replace(partial, path)
            self._set_total(total + size)
        return descriptor

    def _make_room(self, size: int) -> int:
        """Remove entries, those used longest ago first, until `size` bytes fit; the bytes that stay."""
        entries = []
        for entry in os.scandir(self.folder / ENTRIES):
            status = entry.stat()
            entries.append((status.st_mtime_ns, status.st_size, entry.path))
        total = sum(entry[1] for entry in entries)
        if total + size <= self.max_bytes:
            return total
        wanted = max(0, int(self.max_bytes * KEPT_SHARE) - size)
        for _, num_bytes, path in sorted(entries):
            if total <= wanted:
                break
            os.unlink(path)
            total -= num_bytes
        return total

    @contextmanager
    def _filling(self, path: Path) -> Iterator[None]:
        """Each entry has a lock of its own: what fills one may ask for others, which others are filling."""
        with open(self.folder / LOCK_FILE, "ab") as lock:
            byte = int(path.name[:15], 16)
            fcntl.fcntl(lock, fcntl.F_OFD_SETLKW, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
            yield

    def _path(self, name: str) -> Path:
        return self.folder / ENTRIES / hashlib.blake2b(name.encode(), digest_size=16).hexdigest()

    def _total(self) -> int:
        return int((self.folder / TOTAL_NAME).read_text())

    def _set_total(self, total: int) -> None:
        (self.folder / TOTAL_NAME).write_text(str(total))

    @contextmanager
    def _locked(self, what: str) -> Iterator[None]:
        with open(self.folder / f"{what}.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _opened(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    os.utime(descriptor)  # used now
    return descriptor
