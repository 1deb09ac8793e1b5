"""Bounded on-disk cache: files by key, least recently used first to go, shared by processes and killed at will.

entries/HASH      whole entries; one appears by a rename, so nobody sees half of it
.HASH.*.partial   entries being written, each locked by its writer: one that is not locked is what a kill has left
total             bytes of the entries, never less than they are; counted anew at each start
entries.lock      a byte for each entry: who fills it
room.lock         held while entries come and go

No torch. A local folder is wanted: locks must work, and all users of it must see each other's.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mmtrain.io.atomic import FILE_MODE, PARTIAL, atomic_write, temporary_name
from mmtrain.io.errors import TooLargeError
from mmtrain.io.locks import byte_lock, file_lock, try_lock

KEPT_SHARE = 0.9  # of the bound, after room was made: so that not every entry has to make room
TOTAL, ENTRIES, ENTRY_LOCKS, ROOM_LOCK = "total", "entries", "entries.lock", "room.lock"


class BoundedCache:
    """Files by key, filled when first asked for; those used longest ago go when `max_bytes` would be passed."""

    def __init__(self, folder: Path, max_bytes: int, *, limit_name: str = "max_bytes") -> None:
        """Make or take up the cache in `folder`; `limit_name` is the setting behind `max_bytes`, for messages.

        Raises OSError where the folder cannot be written.
        """
        self.folder, self.max_bytes, self._limit_name = Path(folder), max_bytes, limit_name
        (self.folder / ENTRIES).mkdir(parents=True, exist_ok=True)
        with file_lock(self.folder / ROOM_LOCK):
            self._set_total(self._make_room())

    def open(self, key: str, fill: Callable[[BinaryIO], None], *, name: str = "", num_bytes: int | None = None) -> int:
        """A descriptor of the entry of `key`, for the caller to close; where it is missing, `fill` writes it first.

        An entry that goes meanwhile can still be read. One that is not `num_bytes` long, where that is known, counts
        as missing. What `fill` raises passes through and leaves nothing; TooLargeError (with `name`, by default the
        key) where one entry alone is larger than the bound.
        """
        path = self._path(key)
        if (descriptor := _opened(path, num_bytes)) is not None:
            return descriptor
        with byte_lock(self.folder / ENTRY_LOCKS, int(path.name[:15], 16)):
            if (descriptor := _opened(path, num_bytes)) is not None:  # another process was faster
                return descriptor
            with self._new_file(path.name) as (temporary, file):
                fill(file)
                file.flush()
                size = os.fstat(file.fileno()).st_size
                if size > self.max_bytes:
                    limit = f"{self._limit_name} ({self.max_bytes})"
                    raise TooLargeError(f"{name or key} is {size} bytes long; set {limit} to more than that")
                return self._enter(temporary, path, size)

    def holds(self, key: str) -> bool:
        """Whether the entry of `key` is there now."""
        return self._path(key).exists()

    def remove(self, key: str) -> None:
        """Forget an entry that is found to be damaged; the total counts it until it is counted anew."""
        self._path(key).unlink(missing_ok=True)

    def _enter(self, temporary: Path, path: Path, size: int) -> int:
        with file_lock(self.folder / ROOM_LOCK):
            total = self._total()
            if total is None or total + size > self.max_bytes:
                total = self._make_room()
            # First the total: a kill between the two leaves one that is too high, and the next count mends it.
            self._set_total(total + size)
            descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
            os.replace(temporary, path)
        return descriptor

    def _make_room(self) -> int:
        """Remove entries, those used longest ago first, until what is being written fits beside them.

        Returns the bytes of the entries that stay.
        """
        writing = self._sweep()
        entries = []
        for entry in os.scandir(self.folder / ENTRIES):
            status = os.stat(entry.path)
            entries.append((status.st_mtime_ns, status.st_size, entry.path))
        total = sum(entry[1] for entry in entries)
        if total + writing <= self.max_bytes:
            return total
        wanted = max(0, int(self.max_bytes * KEPT_SHARE) - writing)
        for _, num_bytes, path in sorted(entries):
            if total <= wanted:
                break
            os.unlink(path)
            total -= num_bytes
        return total

    def _sweep(self) -> int:
        """Remove files whose writers are dead (a live one holds a lock); the bytes of those being written."""
        num_bytes = 0
        for path in self.folder.glob(f".*{PARTIAL}"):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # finished or given up just now
            try:
                if try_lock(descriptor):
                    path.unlink(missing_ok=True)
                else:
                    num_bytes += os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
        return num_bytes

    @contextmanager
    def _new_file(self, name: str) -> Iterator[tuple[Path, BinaryIO]]:
        temporary = temporary_name(self.folder / name)
        with file_lock(self.folder / ROOM_LOCK):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
            try_lock(descriptor)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield temporary, file
        finally:
            temporary.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16)
        return self.folder / ENTRIES / digest.hexdigest()

    def _total(self) -> int | None:
        """The bytes of all entries, None where nobody can tell without counting."""
        try:
            return int((self.folder / TOTAL).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def _set_total(self, total: int) -> None:
        atomic_write(self.folder / TOTAL, str(total), durable=False)


def _opened(path: Path, num_bytes: int | None) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if num_bytes is not None and os.fstat(descriptor).st_size != num_bytes:
        os.close(descriptor)
        return None
    os.utime(descriptor)  # used now
    return descriptor
