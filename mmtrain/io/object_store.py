"""Object store: files behind http(s), the stores that fsspec knows (s3://, gs://, ...) and pipe: commands. No torch.

One try each, bounded by idle time-outs; what may be tried again is a TransientError (`mmtrain.io.retry`). A download
goes into the file that it was given and nowhere else, so that a try cannot disturb a later one.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

from mmtrain.io.errors import AddressRefusedError, NotFoundError, StorageError, TooLargeError, TransientError
from mmtrain.io.http import ByteRange, HttpClient
from mmtrain.io.pipe import stream_command
from mmtrain.io.text import redact
from mmtrain.io.urls import PIPE, is_http, scheme_of

STORE_PIECE_BYTES = 8 * 2**20  # asked of a store at once: each piece must come within the time-out
LOCAL_STORES = ("LocalFileSystem", "MemoryFileSystem")  # which wait for nobody
Result = TypeVar("Result")


@dataclass(frozen=True)
class FileVersion:
    """What tells a file from another one under the same address, as far as is known."""

    num_bytes: int | None = None
    tag: str = ""  # a checksum, an ETag, a time


UNKNOWN_VERSION = FileVersion()


@dataclass(frozen=True)
class ObjectStore:
    """Reads files wherever they lie; safe from threads and after a fork."""

    http: HttpClient = field(default_factory=HttpClient)
    allow_pipe: bool = False  # run pipe: commands
    allow_chains: bool = True  # of fsspec's file systems: zip://a.tar::s3://bucket/b.zip

    def read(self, url: str, max_bytes: int | None = None) -> bytes:
        """A whole small file; TooLargeError where it has more than `max_bytes`."""
        if is_http(url) or url.startswith(PIPE):
            pieces, count = [], 0
            for piece in self.stream(url):
                count += len(piece)
                if max_bytes is not None and count > max_bytes:
                    raise TooLargeError(f"more than {max_bytes} bytes")
                pieces.append(piece)
            return b"".join(pieces)
        content = self._ask(url, "cat_file", *(() if max_bytes is None else (0, max_bytes + 1)))
        if max_bytes is not None and len(content) > max_bytes:
            raise TooLargeError(f"more than {max_bytes} bytes")
        return content

    def read_range(self, url: str, start: int, stop: int) -> ByteRange | None:
        """Bytes `start`..`stop`-1, fewer where the file ends before; None where only whole files can be had."""
        if url.startswith(PIPE):
            return None
        if is_http(url):
            return self.http.read_range(url, start, stop)
        return ByteRange(self._ask(url, "cat_file", start, stop), None)

    def stream(self, url: str) -> Iterator[bytes]:
        """The bytes of a file of any size, piece by piece."""
        if is_http(url):
            yield from self.http.stream(url)
        elif url.startswith(PIPE):
            if not self.allow_pipe:
                raise AddressRefusedError("pipe: commands are not run unless data.allow_pipe is true")
            yield from stream_command(url.removeprefix(PIPE), self.http.timeout_seconds)
        else:
            num_bytes = self._ask(url, "info")["size"]
            if num_bytes is None:
                yield self._ask(url, "cat_file")
                return
            for start in range(0, num_bytes, STORE_PIECE_BYTES):
                stop = min(start + STORE_PIECE_BYTES, num_bytes)
                piece = self._ask(url, "cat_file", start, stop)
                if len(piece) != stop - start:
                    raise TransientError(f"ended at byte {start + len(piece)} of {num_bytes}")
                yield piece

    def download(self, url: str, file: BinaryIO) -> None:
        """Write a whole file to `file`, which must be empty."""
        for piece in self.stream(url):
            file.write(piece)

    def version(self, url: str) -> FileVersion:
        """What tells the file at `url` from another one, without reading it; UNKNOWN_VERSION where nobody says."""
        if url.startswith(PIPE):
            return UNKNOWN_VERSION
        if is_http(url):
            headers = self.http.describe(url)
            size = headers.get("Content-Length", "")
            tag = headers.get("ETag") or headers.get("Last-Modified") or ""
            return FileVersion((int(size) if size.isdecimal() else 0) or None, tag)
        info = self._ask(url, "info")
        tags = [
            f"{name}={info[name]}"
            for name in ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")
            if name in info
        ]
        return FileVersion(info.get("size"), " ".join(tags))

    def list_files(self, folder: str, suffix: str) -> list[str]:
        """The addresses of a folder's files that end in `suffix` (in any case), sorted; none for http(s)."""
        if is_http(folder) or folder.startswith(PIPE):
            return []
        system, path = self._system(folder)
        try:
            found = self._bounded(system, "ls", path.rstrip("/"))
        except NotFoundError:  # a store has no empty folders
            return []
        names = (entry["name"] for entry in found if entry["type"] == "file")
        return sorted(system.unstrip_protocol(name) for name in names if name.lower().endswith(suffix))

    def _ask(self, url: str, method: str, *words: Any) -> Any:
        system, path = self._system(url)
        return self._bounded(system, method, path, *words)

    def _system(self, url: str) -> tuple[Any, str]:
        import fsspec

        if "::" in url and not self.allow_chains:
            raise StorageError("chains of file systems (::) are not followed")
        try:
            with _making:  # made once and kept by fsspec, but not by many threads at once
                return fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StorageError(f"addresses that begin with {scheme_of(url)}:// cannot be read: {error}") from error
        except Exception as error:  # some connect and log in where they are made
            raise TransientError(redact(f"{type(error).__name__}: {error}")) from error

    def _bounded(self, system: Any, method: str, *words: Any) -> Any:
        """Call a file system; TransientError where no answer comes in time."""
        seconds = self.http.timeout_seconds
        try:
            if system.async_impl and not system.asynchronous:
                from fsspec.asyn import sync

                return sync(system.loop, getattr(system, f"_{method}"), *words, timeout=seconds)
            if type(system).__name__ in LOCAL_STORES:
                return getattr(system, method)(*words)
            return _in_time(lambda: getattr(system, method)(*words), seconds)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise NotFoundError(f"{type(error).__name__}: {redact(str(error))}") from error
        except PermissionError as error:
            raise StorageError(f"{type(error).__name__}: {redact(str(error))}") from error
        except StorageError:
            raise
        except TimeoutError as error:
            raise TransientError(f"no answer within {seconds:g} s") from error
        except Exception as error:  # each store has failures of its own kind
            raise TransientError(redact(f"{type(error).__name__}: {error}")) from error


_making = threading.Lock()


def _in_time(call: Callable[[], Result], seconds: float) -> Result:
    """`call` for a store that knows no time-outs: it only returns bytes, so one that hangs can do nothing later."""
    done: list[Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(call())
        except BaseException as error:  # handed to the thread that waits
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True, name="bounded read")
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError
    return done[0]


def _forget_connections() -> None:
    """In a forked process: event loops of the parent are not to be used."""
    global _making
    _making = threading.Lock()
    if "fsspec.asyn" in sys.modules:
        from fsspec.asyn import reset_lock

        reset_lock()


os.register_at_fork(after_in_child=_forget_connections)
