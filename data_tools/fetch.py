"""Bytes of a place, wherever it is: a file, a part of a tar, http(s), or an object store that fsspec knows."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import uniform
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from data_tools.left_out import Unusable
from data_tools.rows import Inside, Place, Url
from mmtrain.data.index import DataError, Part, read_part

MAX_FILE_BYTES = 64 << 20  # of one image; no photo for training is larger
PIECE_BYTES = 1 << 16
HTTP_SCHEMES = ("http", "https")
USER_AGENT = "Mozilla/5.0 (compatible; mmdata)"
# Sites say in this header that an image is not to be trained on.
OPT_OUT_HEADER, OPT_OUTS = "X-Robots-Tag", {"noai", "noimageai"}
PASSING_STATUSES = {408, 425, 429, 500, 502, 503, 504}  # another attempt may do
MAX_WAIT_SECONDS = 60.0
DOWNLOAD_FAILED, MISSING_FILE, UNREADABLE = "download failed", "missing file", "file cannot be read"
MAY_SUCCEED_LATER = (DOWNLOAD_FAILED, MISSING_FILE, UNREADABLE)  # reasons that `--retry-failed` tries again


@dataclass(frozen=True)
class FetchRules:
    """How hard bytes are asked for; changes no byte of what comes."""

    threads: int = 16  # downloads at once, per process
    retries: int = 2  # further attempts after the first
    backoff_seconds: float = 1.0  # before the first of them, doubled for each further one
    timeout_seconds: float = 10.0  # without a byte; six times as much for the whole answer


class Passing(Exception):
    """A failure that may not happen again; `wait_seconds` is how long the other side asks to wait."""

    def __init__(self, detail: str, wait_seconds: float = 0.0) -> None:
        super().__init__(detail)
        self.wait_seconds = wait_seconds


def fetch(place: Place, rules: FetchRules, most_bytes: int = MAX_FILE_BYTES) -> bytes:
    """All bytes of a place; Unusable with one of a few reasons where they cannot be had or are too many."""
    if isinstance(place, Url):
        pieces: list[bytes] = []
        _attempts(place, rules, pieces.append, pieces.clear, most_bytes)
        return b"".join(pieces)
    if isinstance(place, Inside):
        return _fetch_inside(place, most_bytes)
    return _fetch_file(place, most_bytes)


def fetch_file(place: Url, folder: Path, rules: FetchRules) -> Path:
    """A copy of a remote input in `folder`, under a name of its own; one that is there already is not fetched again."""
    digest = hashlib.blake2b(place.address.encode(), digest_size=4).hexdigest()
    name = f"{digest}-{urlsplit(place.address).path.rpartition('/')[2]}"
    copy, partial = folder / name, folder / f".{name}.partial"
    if not copy.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "wb") as file:
                _attempts(place, rules, file.write, lambda: file.truncate(file.seek(0)), most_bytes=None)
        except Unusable as error:
            raise DataError(f"INPUT {place.address} cannot be fetched: {error.reason} ({error.detail})") from error
        partial.rename(copy)
    return copy


def check_stores(places: Iterable[object]) -> None:
    """DataError naming the package where an address needs one that is not installed, or is of a kind nobody knows."""
    schemes = {urlsplit(place.address).scheme.lower() for place in places if isinstance(place, Url)}
    for scheme in sorted(schemes - set(HTTP_SCHEMES)):
        import fsspec

        try:
            fsspec.get_filesystem_class(scheme)
        except (ImportError, ValueError) as error:
            raise DataError(f"addresses that begin with {scheme}:// cannot be read: {error}") from error


def _fetch_file(path: Path, most_bytes: int) -> bytes:
    try:
        if not path.is_file():
            raise Unusable(MISSING_FILE, str(path))
        if (size := path.stat().st_size) > most_bytes:
            raise Unusable("file too large", f"{size} bytes, at most {most_bytes}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise Unusable(UNREADABLE, str(error)) from error


def _fetch_inside(place: Inside, most_bytes: int) -> bytes:
    if place.size > most_bytes:
        raise Unusable("file too large", f"{place.size} bytes, at most {most_bytes}")
    try:
        return read_part(place.tar, Part(place.offset, place.size))
    except DataError as error:
        raise Unusable(UNREADABLE, str(error)) from error


def _attempts(
    place: Url, rules: FetchRules, take: Callable[[bytes], Any], again: Callable[[], Any], most_bytes: int | None
) -> None:
    """Hand the bytes to `take`, in several attempts where needed; `again` forgets those of the attempt before."""
    ask = _ask_http if urlsplit(place.address).scheme.lower() in HTTP_SCHEMES else _ask_store
    for attempt in range(rules.retries + 1):
        again()
        try:
            return _bounded(ask(place.address, rules), take, most_bytes)
        except Passing as error:
            if attempt == rules.retries:
                raise Unusable(DOWNLOAD_FAILED, f"{error}, {attempt + 1} attempts") from error
            # A little chance in the wait, so that many do not come back at the same moment.
            wait = rules.backoff_seconds * 2**attempt * uniform(0.75, 1.25)
            time.sleep(min(max(wait, error.wait_seconds), MAX_WAIT_SECONDS))


def _bounded(pieces: Iterable[bytes], take: Callable[[bytes], Any], most_bytes: int | None) -> None:
    count = 0
    for piece in pieces:
        count += len(piece)
        if most_bytes is not None and count > most_bytes:
            raise Unusable("file too large", f"more than {most_bytes} bytes")
        take(piece)


def _ask_http(address: str, rules: FetchRules) -> Iterable[bytes]:
    from urllib3.exceptions import HTTPError, LocationParseError, LocationValueError

    deadline = time.monotonic() + 6 * rules.timeout_seconds
    try:
        answer = _connections(rules).request("GET", address, preload_content=False, decode_content=False)
        whole = False
        try:
            _check_answer(answer)
            while piece := answer.read1(PIECE_BYTES):
                yield piece
                if time.monotonic() > deadline:  # a byte now and then keeps a connection alive for ever
                    raise Passing(f"not whole after {6 * rules.timeout_seconds:g} s")
            if answer.length_remaining:
                raise Passing(f"ended {answer.length_remaining} bytes early")
            whole = True
        finally:
            # What is left of an answer must not be taken for the next one.
            answer.release_conn() if whole else answer.close()
    except (LocationParseError, LocationValueError, UnicodeError) as error:
        raise Unusable(DOWNLOAD_FAILED, f"no address: {error}") from error
    except (HTTPError, OSError) as error:
        raise Passing(f"{type(error).__name__}: {error}") from error


def _check_answer(answer: Any) -> None:
    if answer.status in PASSING_STATUSES:
        after = answer.headers.get("Retry-After", "")
        raise Passing(f"HTTP {answer.status}", float(after) if after.isdecimal() else 0.0)
    if answer.status != 200:
        raise Unusable(DOWNLOAD_FAILED, f"HTTP {answer.status}")
    said = {word.strip().lower() for word in answer.headers.get(OPT_OUT_HEADER, "").replace(":", ",").split(",")}
    if said & OPT_OUTS:
        raise Unusable("not allowed by its site", f"{OPT_OUT_HEADER}: {answer.headers[OPT_OUT_HEADER]}")


@lru_cache(maxsize=2)
def _connections(rules: FetchRules) -> Any:
    from urllib3 import PoolManager, Retry, Timeout

    wait = Timeout(connect=rules.timeout_seconds, read=rules.timeout_seconds)
    # Redirects are followed here, everything else is tried again by ourselves.
    turns = Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5)
    return PoolManager(64, headers={"User-Agent": USER_AGENT}, maxsize=rules.threads, timeout=wait, retries=turns)


_stores_lock = threading.Lock()


def _ask_store(address: str, rules: FetchRules) -> Iterable[bytes]:
    import fsspec

    if "::" in address:
        raise Unusable(DOWNLOAD_FAILED, "no address: chains of file systems are not followed")
    try:
        with _stores_lock:  # file systems are made once and cached, but not by many threads at once
            store, path = fsspec.url_to_fs(address)
        file: BinaryIO
        with store.open(path, "rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise Unusable(DOWNLOAD_FAILED, f"{type(error).__name__}: {error}") from error
    except Exception as error:  # each store has failures of its own kind
        raise Passing(f"{type(error).__name__}: {error}") from error
