"""Bytes from elsewhere: http(s), the object stores that fsspec knows, and pipe: commands. No torch.

Tars that have an index are read in ranges, a block at a time; of others webdataset's `gopen` brings the whole.
"""

import shutil
import sys
from dataclasses import dataclass
from functools import partial
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from mmtrain.data.retry import Patience
from mmtrain.io.urls import PIPE, has_suffix

HTTP = ("http://", "https://")
PARTIAL_CONTENT = 206
GONE = (403, 404, 410)  # asking again would not help
COPY_BYTES = 2**20


@dataclass(frozen=True)
class Remote:
    """Reads from elsewhere; whatever fails is tried again and then named in a DataError."""

    patience: Patience

    def whole(self, url: str) -> bytes:
        """A small file; DataError where it is not there."""
        return self.patience.read(partial(_whole, url, self.patience.timeout_seconds), url)

    def range(self, url: str, start: int, stop: int) -> bytes | None:
        """Bytes `start`..`stop`-1, fewer where the file ends before; None from a server that sends whole files only."""
        return self.patience.read(partial(_range, url, start, stop, self.patience.timeout_seconds), url)

    def fetch(self, url: str, path: Path) -> None:
        """Bring a whole tar, or what a pipe: command writes, to a local file."""
        self.patience.read(partial(_fetch, url, path, self.patience.timeout_seconds), url)

    def folder(self, url: str) -> list[str]:
        """The tars in a folder of an object store; empty for http(s), which lists nothing."""
        return [] if url.startswith(HTTP) else self.patience.read(partial(_tars, url), url)


def _whole(url: str, timeout_seconds: float) -> bytes:
    if url.startswith(HTTP):
        with _http(Request(url), timeout_seconds) as answer:
            return answer.read()
    system, path = _file_system(url)
    return system.cat_file(path)


def _range(url: str, start: int, stop: int, timeout_seconds: float) -> bytes | None:
    if url.startswith(HTTP):
        with _http(Request(url, headers={"Range": f"bytes={start}-{stop - 1}"}), timeout_seconds) as answer:
            return answer.read() if answer.status == PARTIAL_CONTENT else None
    system, path = _file_system(url)
    return system.cat_file(path, start, stop)


def _http(request: Request, timeout_seconds: float) -> HTTPResponse:
    try:
        return urlopen(request, timeout=timeout_seconds)
    except HTTPError as error:
        if error.code in GONE:
            raise FileNotFoundError(request.full_url) from error
        raise


def _fetch(url: str, path: Path, timeout_seconds: float) -> None:
    if url.startswith(HTTP):
        source = _http(Request(url), timeout_seconds)
    elif url.startswith(PIPE):
        from webdataset.gopen import gopen  # reads commands as webdataset's own users write them

        source = gopen(url, "rb")
    else:
        system, inner = _file_system(url)
        source = system.open(inner, "rb")
    with source as stream, open(path, "wb") as file:
        shutil.copyfileobj(stream, file, COPY_BYTES)


def _tars(url: str) -> list[str]:
    system, path = _file_system(url)
    found = map(system.unstrip_protocol, system.glob(f"{path.rstrip('/')}/*"))
    return sorted(name for name in found if has_suffix(name, (".tar",)))


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    return fsspec.core.url_to_fs(url)


def forget_connections() -> None:
    """In a forked process: connections and event loops of the parent are not to be used."""
    if "fsspec.asyn" in sys.modules:
        from fsspec.asyn import reset_lock

        reset_lock()
