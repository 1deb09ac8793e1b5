"""HTTP client: keep-alive, idle time-outs, byte ranges, bodies that are whole or an error (RFC 9110). No torch.

One try each; what may be tried again is a TransientError (`mmtrain.io.retry`). Proxies are those of the environment.
"""

import os
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from mmtrain.io.errors import NotFoundError, OptOutError, StorageError, TransientError
from mmtrain.io.text import redact
from mmtrain.io.urls import encode_url, is_http, parse_url

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

MAX_REDIRECTS = 5
MAX_HOSTS = 64  # whose connections are kept
PIECE_BYTES = 2**16
OK, PARTIAL_CONTENT = 200, 206
GONE = (403, 404, 410)  # object stores answer 403 where a file is missing and the folder may not be listed
LATER = (408, 425, 429)  # of the errors below 500, those that pass
NEVER = (501, 505)  # of those from 500 on, those that do not
# Sites say in this header that an image is not to be trained on.
OPT_OUT_HEADER, OPT_OUTS = "X-Robots-Tag", {"noai", "noimageai"}


@dataclass(frozen=True)
class ByteRange:
    """Some bytes of a file, and the size of the whole where the server says it."""

    content: bytes
    total_bytes: int | None


@dataclass(frozen=True)
class HttpClient:
    """Reads http(s) files; safe from threads, and after a fork each process has connections of its own."""

    timeout_seconds: float = 120.0  # for a connection, and without a byte
    total_seconds: float | None = None  # for a whole answer
    user_agent: str = "mmtrain"
    num_connections: int = 16  # kept to each host
    private_addresses: bool = True  # False: only hosts of the public internet are connected to, see `addresses`
    honour_opt_out: bool = False  # OptOutError where the site asks that a file is not trained on

    def stream(self, url: str) -> Iterator[bytes]:
        """The bytes of a file, piece by piece. TransientError where it ends early or stalls."""
        with self._answer("GET", url, {}) as answer:
            if answer.status != OK:
                raise StorageError(f"HTTP {answer.status}")
            yield from self._pieces(answer)

    def read_range(self, url: str, start: int, stop: int) -> ByteRange | None:
        """Bytes `start`..`stop`-1, fewer where the file ends before; None from a server that sends whole files only."""
        with self._answer("GET", url, {"Range": f"bytes={start}-{stop - 1}"}) as answer:
            if answer.status != PARTIAL_CONTENT:
                return None
            first, total = _content_range(answer.headers.get("Content-Range", ""), start)
            content = b"".join(self._pieces(answer))
            wanted = stop - start if total is None else min(stop, total) - start
            if first != start or len(content) > stop - start or (total is not None and len(content) != wanted):
                raise TransientError(f"sent {len(content)} bytes from {first}, asked for {wanted} from {start}")
            return ByteRange(content, total)

    def describe(self, url: str) -> dict[str, str]:
        """The headers that tell one version of a file from another; empty where the server does not say."""
        try:
            with self._answer("HEAD", url, {}) as answer:
                names = ("Content-Length", "ETag", "Last-Modified")
                return {name: answer.headers[name] for name in names if name in answer.headers}
        except TransientError:
            raise
        except StorageError:  # signed addresses often hold for GET only
            return {}

    @contextmanager
    def _answer(self, method: str, url: str, headers: Mapping[str, str]) -> "Iterator[BaseHTTPResponse]":
        """The answer behind all redirects; its connection is kept where the body was read to its end."""
        from urllib3.exceptions import HTTPError, LocationValueError

        try:
            answer = self._follow(method, encode_url(url), headers)
            try:
                _raise_for_status(answer)
                if self.honour_opt_out:
                    _raise_for_opt_out(answer.headers)
                yield answer
            finally:
                # What is left of an answer must not be taken for the next one.
                if answer.length_remaining == 0 and not answer.chunked:
                    answer.drain_conn()  # an answer without a body (HEAD, Content-Length: 0) ends by being read
                    answer.release_conn()
                else:
                    answer.close()
        except LocationValueError as error:
            raise StorageError(f"no address: {error}") from error
        except (HTTPError, OSError) as error:
            raise _as_storage_error(error) from error

    def _follow(self, method: str, url: str, headers: Mapping[str, str]) -> "BaseHTTPResponse":
        origin = urlsplit(url)
        for _ in range(MAX_REDIRECTS + 1):
            parts = parse_url(url)
            sent = {"User-Agent": self.user_agent, **headers}
            if parts.username and (parts.scheme, parts.netloc) == (origin.scheme, origin.netloc):
                sent |= _basic_auth(parts.username, parts.password or "")
            pool = _pool(self, _proxy_of(parts.scheme, parts.netloc))
            target = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            if not self.private_addresses and _proxy_of(parts.scheme, parts.netloc):
                _check_before_proxy(parts.hostname, parts.port or 443)
            answer = pool.request(
                method, target, headers=sent, preload_content=False, decode_content=False, retries=False, redirect=False
            )
            location = answer.get_redirect_location()
            if not location:
                return answer
            answer.close()
            url = urljoin(url, location)
            if not is_http(url):
                raise StorageError(f"redirected to {redact(url)}, which is neither http nor https")
        raise StorageError(f"too many redirects, more than {MAX_REDIRECTS}")

    def _pieces(self, answer: "BaseHTTPResponse") -> Iterator[bytes]:
        deadline = None if self.total_seconds is None else time.monotonic() + self.total_seconds
        while piece := answer.read1(PIECE_BYTES):
            yield piece
            if deadline is not None and time.monotonic() > deadline:  # a byte now and then keeps a connection alive
                raise TransientError(f"not whole after {self.total_seconds:g} s")
        if answer.length_remaining:
            raise TransientError(f"ended {answer.length_remaining} bytes early")


_pools: dict[tuple[HttpClient, str], "PoolManager"] = {}
os.register_at_fork(after_in_child=_pools.clear)  # connections of the parent are not the child's


def _pool(client: HttpClient, proxy: str) -> "PoolManager":
    if (client, proxy) not in _pools:
        from urllib3 import PoolManager, ProxyManager, Timeout

        wait = Timeout(connect=client.timeout_seconds, read=client.timeout_seconds)
        options: dict[str, Any] = {"num_pools": MAX_HOSTS, "maxsize": client.num_connections, "timeout": wait}
        pool = ProxyManager(proxy, **options) if proxy else PoolManager(**options)
        if not (proxy or client.private_addresses):
            from mmtrain.io.addresses import PUBLIC_POOLS

            pool.pool_classes_by_scheme = PUBLIC_POOLS
        # Of two threads that come here at once one pool is kept.
        return _pools.setdefault((client, proxy), pool)
    return _pools[client, proxy]


def _proxy_of(scheme: str, netloc: str) -> str:
    host = netloc.rpartition("@")[2]
    return "" if proxy_bypass(host) else getproxies().get(scheme, "")


def _check_before_proxy(host: str | None, port: int) -> None:
    """A proxy connects to what it resolves itself: checked is what this machine knows; an unknown name passes."""
    from mmtrain.io.addresses import public_addresses

    try:
        public_addresses(host or "", port)
    except socket.gaierror:
        return


def _raise_for_status(answer: "BaseHTTPResponse") -> None:
    status = answer.status
    if status in GONE:
        raise NotFoundError(f"HTTP {status}")
    if status in LATER or (status >= 500 and status not in NEVER):
        raise TransientError(f"HTTP {status}", _retry_after(answer.headers.get("Retry-After", "")))
    if status not in (OK, PARTIAL_CONTENT):
        raise StorageError(f"HTTP {status}")


def _raise_for_opt_out(headers: Mapping[str, str]) -> None:
    given = headers.get(OPT_OUT_HEADER, "")
    if OPT_OUTS & {word.strip().lower() for word in given.replace(":", ",").split(",")}:
        raise OptOutError(f"{OPT_OUT_HEADER}: {given}")


def _retry_after(text: str) -> float:
    """Seconds of a Retry-After header, a number or a date; 0 where it is neither."""
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _content_range(text: str, start: int) -> tuple[int, int | None]:
    """First byte and total of `bytes FIRST-LAST/TOTAL`; what was asked for where the server does not say."""
    unit, _, rest = text.strip().partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit.lower() != "bytes" or not first.isdecimal():
        return start, None
    return int(first), int(total) if total.isdecimal() else None


def _basic_auth(user: str, password: str) -> dict[str, str]:
    from urllib3.util import make_headers

    return make_headers(basic_auth=f"{unquote(user)}:{unquote(password)}")


def _as_storage_error(error: Exception) -> StorageError:
    """A failure of the connection: passing, but for a certificate that is not valid."""
    message = redact(f"{type(error).__name__}: {error}")
    causes = (error, error.__cause__, error.__context__, *error.args)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return StorageError(message)
    return TransientError(message)
