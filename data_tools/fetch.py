"""Bytes of a place, wherever it is: a file, a part of a tar, http(s), or an object store that fsspec knows."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from data_tools.confine import OTHER_SCHEME, OUTSIDE_ROOT
from data_tools.left_out import Unusable
from data_tools.rows import Inside, Place, Url
from mmtrain.data.index import DataError, Part, read_part
from mmtrain.io.atomic import atomic_open
from mmtrain.io.errors import AddressRefusedError, InputError, OptOutError, RetriesExhaustedError, TooLargeError
from mmtrain.io.http import HttpClient
from mmtrain.io.object_store import ObjectStore
from mmtrain.io.retry import RetryPolicy
from mmtrain.io.text import redact
from mmtrain.io.urls import HTTP_SCHEMES, file_name

MAX_FILE_BYTES = 64 << 20  # of one image; no photo for training is larger
TOTAL_TIMEOUTS = 6  # idle time-outs that a whole image may take
NAME_CHARACTERS = 60  # of the name of an input that its copy keeps
USER_AGENT = "Mozilla/5.0 (compatible; mmdata)"
DOWNLOAD_FAILED, MISSING_FILE, UNREADABLE = "download failed", "missing file", "file cannot be read"
PRIVATE_ADDRESS, TOO_LARGE, OPTED_OUT = "private address", "file too large", "not allowed by its site"
# Reasons that `--retry-failed` tries again: the site is back, or the flag is given that was missing.
MAY_SUCCEED_LATER = (DOWNLOAD_FAILED, MISSING_FILE, UNREADABLE, PRIVATE_ADDRESS, OTHER_SCHEME, OUTSIDE_ROOT)
Result = TypeVar("Result")


@dataclass(frozen=True)
class FetchRules:
    """How hard bytes are asked for, and where; changes no byte of what comes."""

    threads: int = 16  # downloads at once, per process
    retries: int = 2  # further attempts after the first
    backoff_seconds: float = 1.0  # before the first of them, doubled for each further one
    timeout_seconds: float = 10.0  # without a byte; six times as much for the whole answer
    private_addresses: bool = False  # addresses in tables may lead into private networks and to this machine


def fetch(place: Place, rules: FetchRules, most_bytes: int = MAX_FILE_BYTES) -> bytes:
    """All bytes of a place; Unusable with one of a few reasons where they cannot be had or are too many."""
    if isinstance(place, Url):
        store = _image_store(rules, place.is_own or rules.private_addresses)
        return _with_retries(place.address, rules, partial(store.read, place.address, most_bytes))
    if isinstance(place, Inside):
        return _fetch_inside(place, most_bytes)
    return _fetch_file(place, most_bytes)


def fetch_file(place: Url, folder: Path, rules: FetchRules) -> Path:
    """A copy of a remote input in `folder`, under a name of its own; one that is there already is not fetched again."""
    digest = hashlib.blake2b(place.address.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    copy = folder / f"{digest}-{file_name(place.address)[-NAME_CHARACTERS:]}"
    # The user has named it: any host will do, and a large table may take its time as long as bytes come.
    store = ObjectStore(_client(rules), allow_chains=False)

    def download() -> None:
        with atomic_open(copy, durable=False) as file:
            store.download(place.address, file)

    if not copy.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _with_retries(place.address, rules, download)
        except Unusable as error:
            name = redact(place.address)
            raise DataError(f"INPUT {name} cannot be fetched: {error.reason} ({error.detail})") from error
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
            raise Unusable(TOO_LARGE, f"{size} bytes, at most {most_bytes}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise Unusable(UNREADABLE, str(error)) from error


def _fetch_inside(place: Inside, most_bytes: int) -> bytes:
    if place.size > most_bytes:
        raise Unusable(TOO_LARGE, f"{place.size} bytes, at most {most_bytes}")
    try:
        return read_part(place.tar, Part(place.offset, place.size))
    except DataError as error:
        raise Unusable(UNREADABLE, str(error)) from error


@lru_cache(maxsize=4)
def _image_store(rules: FetchRules, private_addresses: bool) -> ObjectStore:
    client = _client(rules, TOTAL_TIMEOUTS * rules.timeout_seconds, private_addresses)
    return ObjectStore(client, allow_chains=False)


def _client(rules: FetchRules, total_seconds: float | None = None, private_addresses: bool = True) -> HttpClient:
    return HttpClient(
        rules.timeout_seconds, total_seconds, USER_AGENT, rules.threads, private_addresses, honour_opt_out=True
    )


def _with_retries(address: str, rules: FetchRules, action: Callable[[], Result]) -> Result:
    """The result of `action`, tried again where that may help; Unusable with the reason where it cannot be had."""
    try:
        return RetryPolicy(rules.retries, rules.backoff_seconds).call(action, address)
    except RetriesExhaustedError as error:
        raise Unusable(DOWNLOAD_FAILED, f"{error.last}, {error.num_tries} attempts") from error
    except TooLargeError as error:
        raise Unusable(TOO_LARGE, str(error)) from error
    except OptOutError as error:
        raise Unusable(OPTED_OUT, str(error)) from error
    except AddressRefusedError as error:
        raise Unusable(PRIVATE_ADDRESS, f"{error}; --allow-private-addresses reads it all the same") from error
    except InputError as error:
        raise Unusable(DOWNLOAD_FAILED, str(error)) from error
