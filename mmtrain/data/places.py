"""How the bytes of a shard are reached: a local tar at once, a remote one through the cache. No torch."""

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from mmtrain.config.schema import DataConfig
from mmtrain.data.cache import Cache
from mmtrain.data.faults import DataError
from mmtrain.data.index import Part, index_path, open_sidecar, read_part, read_sidecar, scan_shard, write_index
from mmtrain.data.manifest import ShardEntry
from mmtrain.data.remote import Remote
from mmtrain.data.retry import Patience
from mmtrain.data.sidecar import Sidecar, decode
from mmtrain.io.urls import PIPE, add_suffix, is_remote

LOG = logging.getLogger("mmtrain.data")
BLOCK_BYTES = 2 * 2**20  # of a remote tar, brought and kept in one piece: about a chunk of samples


class Access:
    """Reads shards and their indexes wherever they lie; failing reads are tried again, then named in a DataError."""

    def __init__(self, data: DataConfig) -> None:
        self._patience = Patience(data.read_retries, data.read_timeout_seconds)
        self.remote = Remote(self._patience)
        self._folder, self._max_bytes = data.cache_dir, data.cache_bytes
        self._made: Cache | None = None
        self.manifests: dict[str, dict[str, ShardEntry]] = {}  # of remote folders, by URL, as long as sets are opened
        self._walked: dict[str, Sidecar] = {}  # of local tars without an index of their own
        self._whole_only: set[str] = set()  # remote tars that cannot be read in ranges

    def need_cache(self) -> None:
        """DataError where data.cache_dir is missing or cannot be used; asked at the start of a run."""
        if self._folder is None:
            raise DataError("data.cache_dir is not set; remote shards need a local folder for what was read of them")
        if self._made is None:
            self._made = Cache(self._folder, self._max_bytes)

    @property
    def cache(self) -> Cache:
        """The cache of data.cache_dir."""
        self.need_cache()
        assert self._made is not None
        return self._made

    def read(self, location: str, part: Part) -> bytes:
        """The bytes of one part of a shard."""
        if not is_remote(location):
            return read_part(location, part)
        if location.startswith(PIPE) or location in self._whole_only or self.cache.holds(location):
            return self._read_whole(location, part)
        first, last = part.offset // BLOCK_BYTES, (part.offset + part.size - 1) // BLOCK_BYTES
        blocks = [self._block(location, number) for number in range(first, last + 1)]
        if None in blocks:
            self._whole_only.add(location)
            return self._read_whole(location, part)
        start = part.offset - first * BLOCK_BYTES
        return _all_of(part, b"".join(blocks)[start : start + part.size], location)

    def sidecar(self, location: str) -> Sidecar:
        """The index of a shard; of a remote one that has none, found by reading it once and kept in the cache."""
        if not is_remote(location):
            return self._local_sidecar(location)
        return decode(self._cached(f"{location}.index", lambda path: self._bring_index(location, path)), location)

    def _local_sidecar(self, location: str) -> Sidecar:
        if location in self._walked:
            return self._walked[location]
        try:
            return read_sidecar(Path(location))
        except DataError:
            if not self._walked:
                LOG.info(
                    "%s has no index that fits it: it and others like it are walked, and what is found stays "
                    "in memory; `mmdata index` writes indexes once and for all",
                    location,
                )
            return self._walked.setdefault(location, open_sidecar(Path(location)))

    def _bring_index(self, location: str, path: Path) -> None:
        if not location.startswith(PIPE):
            try:
                path.write_bytes(self.remote.whole(add_suffix(location, ".index")))
                decode(path.read_bytes(), f"{location}.index")
                return
            except DataError:  # there is none, or it is damaged: the tar itself says where its samples lie
                path.unlink(missing_ok=True)
        descriptor = self._open_whole(location)
        try:
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                # The walk wants a path; the entry itself may go at any time, what is open may not.
                tar = Path(folder) / "x.tar"
                tar.symlink_to(f"/proc/self/fd/{descriptor}")
                write_index(scan_shard(tar))
                os.replace(index_path(tar), path)
        finally:
            os.close(descriptor)

    def _read_whole(self, location: str, part: Part) -> bytes:
        descriptor = self._open_whole(location)
        try:
            return _all_of(part, os.pread(descriptor, part.size, part.offset), location)
        finally:
            os.close(descriptor)

    def _open_whole(self, location: str) -> int:
        return self.cache.open(location, lambda path: self.remote.fetch(location, path))

    def _block(self, location: str, number: int) -> bytes | None:
        """One block of a remote tar, None where its server sends whole files only."""
        start = number * BLOCK_BYTES

        def fill(path: Path) -> None:
            content = self.remote.range(location, start, start + BLOCK_BYTES)
            if content is None:
                raise _NoRanges
            path.write_bytes(content)

        try:
            return self._cached(f"{location}#{number}", fill)
        except _NoRanges:
            return None

    def _cached(self, name: str, fill: Callable[[Path], None]) -> bytes:
        with open(self.cache.open(name, fill), "rb") as file:
            return file.read()


class _NoRanges(Exception):
    pass


def _all_of(part: Part, content: bytes, location: str) -> bytes:
    if len(content) != part.size:
        raise DataError(f"{location} ends before byte {part.offset + part.size}; it is another one than was indexed")
    return content
