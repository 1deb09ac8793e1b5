"""How the bytes of a shard are reached: a local tar at once, a remote one through the cache. No torch."""

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from mmtrain.config.schema import DataConfig
from mmtrain.data.faults import DataError
from mmtrain.data.index import Part, encode_index, open_sidecar, read_part, read_sidecar, scan_shard
from mmtrain.data.manifest import ShardEntry
from mmtrain.data.sidecar import Sidecar, decode
from mmtrain.io.cache import BoundedCache
from mmtrain.io.checksum import ChecksumWriter
from mmtrain.io.errors import NotFoundError, RetriesExhaustedError, StorageError, TooLargeError, TransientError
from mmtrain.io.http import HttpClient
from mmtrain.io.object_store import UNKNOWN_VERSION, FileVersion, ObjectStore
from mmtrain.io.retry import RetryPolicy
from mmtrain.io.text import redact
from mmtrain.io.urls import PIPE, add_suffix, is_remote, strip_query

LOG = logging.getLogger("mmtrain.data")
BLOCK_BYTES = 2 * 2**20  # of a remote tar, brought and kept in one piece: about a chunk of samples
Result = TypeVar("Result")


class Access:
    """Reads shards and their indexes wherever they lie; failing reads are tried again, then named in a DataError."""

    def __init__(self, data: DataConfig) -> None:
        self._retry = RetryPolicy(data.read_retries)
        self._store = ObjectStore(HttpClient(data.read_timeout_seconds), allow_pipe=data.allow_pipe)
        self._folder, self._max_bytes = data.cache_dir, data.cache_bytes
        self._made: BoundedCache | None = None
        self.manifests: dict[str, dict[str, ShardEntry]] = {}  # of remote folders, by URL, as long as sets are opened
        self._listed: dict[str, ShardEntry] = {}  # remote tars that a manifest lists
        self._versions: dict[str, FileVersion] = {}  # of the others, as their servers say
        self._walked: dict[str, Sidecar] = {}  # of local tars without an index of their own
        self._whole_only: set[str] = set()  # remote tars that cannot be read in ranges

    def need_cache(self) -> None:
        """DataError where data.cache_dir is missing or cannot be used; asked at the start of a run."""
        if self._folder is None:
            raise DataError("data.cache_dir is not set; remote shards need a local folder for what was read of them")
        if self._made is None:
            try:
                self._made = BoundedCache(self._folder, self._max_bytes, limit_name="data.cache_bytes")
            except OSError as error:
                raise self._unusable_cache(error) from error

    @property
    def cache(self) -> BoundedCache:
        """The cache of data.cache_dir."""
        self.need_cache()
        if self._made is None:
            raise RuntimeError("the cache was not opened")
        return self._made

    def read_file(self, url: str) -> bytes:
        """A small remote file, never cached; DataError, caused by a NotFoundError where it is not there."""
        return self._ask(url, partial(self._store.read, url))

    def list_tars(self, folder: str) -> list[str]:
        """The tars in a folder of an object store; empty for http(s), which lists nothing."""
        return self._ask(folder, partial(self._store.list_files, folder, ".tar"))

    def expect(self, location: str, entry: ShardEntry) -> None:
        """Take what lies at `location` only if it has the size and the checksum that a manifest says."""
        self._listed[location] = entry

    def read(self, location: str, part: Part) -> bytes:
        """The bytes of one part of a shard."""
        if not is_remote(location):
            return read_part(location, part)
        if location.startswith(PIPE) or location in self._whole_only or self.cache.holds(self._key(location)):
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
        key, fill = f"{self._key(location)}.index", partial(self._bring_index, location)
        content = self._cached(key, location, fill)
        try:
            return decode(content, redact(location))
        except DataError as error:  # it was sound when it came
            LOG.warning("data.cache_dir: %s; it is brought anew", error)
            self.cache.remove(key)
        return decode(self._cached(key, location, fill), redact(location))

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

    def _bring_index(self, location: str, file: BinaryIO) -> None:
        if not location.startswith(PIPE) and (content := self._index_beside(location)) is not None:
            file.write(content)
            return
        descriptor = self._open_whole(location)
        try:
            file.write(encode_index(scan_shard(Path(f"/proc/self/fd/{descriptor}"))))
        finally:
            os.close(descriptor)

    def _index_beside(self, location: str) -> bytes | None:
        """The bytes of a remote tar's index; None where the tar itself must say where its samples lie."""
        url, num_bytes = add_suffix(location, ".index"), self._version(location).num_bytes
        try:
            content = self.read_file(url)
            if num_bytes in (None, (found := decode(content, redact(url)).tar_bytes)):
                return content
            LOG.warning("%s is of a tar of %d bytes, not of %d; the tar is read", redact(url), found, num_bytes)
        except DataError as error:  # there is none, or it is damaged
            if not isinstance(error.__cause__, NotFoundError):
                LOG.warning("%s; the tar is read instead", error)
        return None

    def _read_whole(self, location: str, part: Part) -> bytes:
        descriptor = self._open_whole(location)
        try:
            return _all_of(part, os.pread(descriptor, part.size, part.offset), location)
        finally:
            os.close(descriptor)

    def _open_whole(self, location: str) -> int:
        entry = self._listed.get(location)

        def fill(file: BinaryIO) -> None:
            if entry is None:
                self._store.download(location, file)
                return
            writer = ChecksumWriter(file)
            self._store.download(location, writer)
            if (writer.num_bytes, writer.sha256()) != (entry.bytes, entry.sha256):
                raise TransientError(
                    f"its {writer.num_bytes} bytes are not the {entry.bytes} that its manifest lists, by their sha256"
                )

        return self._open(self._key(location), location, fill, entry.bytes if entry else None)

    def _block(self, location: str, number: int) -> bytes | None:
        """One block of a remote tar, None where its server sends whole files only."""
        start, total = number * BLOCK_BYTES, self._version(location).num_bytes

        def fill(file: BinaryIO) -> None:
            found = self._store.read_range(location, start, start + BLOCK_BYTES)
            if found is None:
                raise _NoRanges
            if None not in (total, found.total_bytes) and found.total_bytes != total:
                raise TransientError(f"it is {found.total_bytes} bytes long now, not {total}: it is another file")
            file.write(found.content)

        num_bytes = None if total is None else max(0, min(BLOCK_BYTES, total - start))
        try:
            return self._cached(f"{self._key(location)}#{number}", location, fill, num_bytes)
        except _NoRanges:
            return None

    def _version(self, location: str) -> FileVersion:
        """What tells the file at `location` from another one there, now or in an earlier run."""
        if location in self._listed:
            return FileVersion(self._listed[location].bytes, self._listed[location].sha256)
        if location not in self._versions:
            self._versions[location] = self._ask(location, partial(self._store.version, location))
        return self._versions[location]

    def _key(self, location: str) -> str:
        """Of the cache: another file under the same address has another one, the same under a new signature has not."""
        version = self._version(location)
        if version == UNKNOWN_VERSION or location.startswith(PIPE):
            return location
        return f"{strip_query(location)}\0{version.num_bytes}\0{version.tag}"

    def _cached(self, key: str, location: str, fill: Callable[[BinaryIO], None], num_bytes: int | None = None) -> bytes:
        with open(self._open(key, location, fill, num_bytes), "rb") as file:
            return file.read()

    def _open(self, key: str, location: str, fill: Callable[[BinaryIO], None], num_bytes: int | None) -> int:
        """A descriptor of a cache entry; each try to fill it writes a file of its own."""
        cache, name = self.cache, redact(location)
        return self._ask(location, lambda: cache.open(key, fill, name=name, num_bytes=num_bytes))

    def _ask(self, location: str, action: Callable[[], Result]) -> Result:
        """The result of `action`, tried again where that may help; DataError naming `location`."""
        name = redact(location)
        try:
            return self._retry.call(action, name, on_retry=LOG.warning)
        except NotFoundError as error:
            raise DataError(f"{name} does not exist ({error})") from error
        except (RetriesExhaustedError, TooLargeError) as error:
            raise DataError(str(error)) from error
        except StorageError as error:
            raise DataError(f"{name} cannot be read: {error}") from error
        except OSError as error:
            raise self._unusable_cache(error) from error

    def _unusable_cache(self, error: OSError) -> DataError:
        return DataError(f"data.cache_dir is {str(self._folder)!r}, which cannot be written: {error.strerror or error}")


class _NoRanges(Exception):
    pass


def _all_of(part: Part, content: bytes, location: str) -> bytes:
    if len(content) != part.size:
        name = redact(location)
        raise DataError(f"{name} ends before byte {part.offset + part.size}; it is another one than was indexed")
    return content
