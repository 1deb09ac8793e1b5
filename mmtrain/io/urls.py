"""Addresses (URLs) of shards, tables and images: told from local names, normalized, joined. No torch.

An address begins with SCHEME:// in letters of any case. http(s) addresses follow RFC 3986: path, query, fragment. In
those of object stores (s3, gs, ...) everything behind the scheme is the key, literally. `pipe:COMMAND` is a command
whose output is read. All functions take any text: a malformed address is never an exception here, since reading it is
what fails; `parse_url` is the exception for whoever wants to check.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

from mmtrain.io.errors import InputError
from mmtrain.io.text import redact

PIPE = "pipe:"
SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
HTTP_SCHEMES = ("http", "https")
FILE_SCHEME = "file"
# What may stand in a path or query as it is (RFC 3986 pchar, "/" and "?"), and "%" of an escape that is there already.
_PATH_SAFE, _QUERY_SAFE = "/:@!$&'()*+,;=~%[]{}|", "/?:@!$&'()*+,;=~%[]{}|"
_LONE_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")


def scheme_of(place: str) -> str:
    """The scheme of an address in lower case, "pipe" of a command, "" of a local name."""
    if place.startswith(PIPE):
        return "pipe"
    found = SCHEME.match(place)
    return found[1].lower() if found else ""


def is_remote(place: str) -> bool:
    """Whether a place is an address or a command rather than a local name (which file:// addresses are too)."""
    return scheme_of(place) not in ("", FILE_SCHEME)


def is_http(place: str) -> bool:
    """Whether a place is an address of a web server."""
    return scheme_of(place) in HTTP_SCHEMES


def parse_url(address: str) -> SplitResult:
    """The parts of an address; InputError where it is malformed, as http://[::1/ is."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError as error:
        raise InputError(f"{redact(address)!r} is not an address: {error}") from error
    if parts.scheme in HTTP_SCHEMES and not parts.hostname:
        raise InputError(f"{redact(address)!r} is not an address: it names no host")
    return parts


def normalize_url(place: str) -> str:
    """An address in the form that servers are asked with; local names, commands and keys of stores stay as they are.

    The scheme becomes lower case. Of http(s) the fragment goes, and what may not stand in a URL (spaces, non-ASCII
    letters, control characters) is percent-encoded; escapes that are there stay, so that twice is as good as once.
    """
    scheme = scheme_of(place)
    if scheme in ("", "pipe"):
        return place
    rest = place[len(scheme) :]
    if scheme not in HTTP_SCHEMES:
        return scheme + rest
    host, path, query = _split(rest[len("://") :])
    query = f"?{_encode(query[1:], _QUERY_SAFE)}" if query else ""
    return f"{scheme}://{host}{_encode(path, _PATH_SAFE)}{query}"


def url_name(place: str) -> str:
    """The file name of an address, as it would be on a disk: without query, decoded. Of local names the last part."""
    if is_http(place):
        _, path, _ = _split(place.partition("://")[2])
        return unquote(path.rstrip("/").rpartition("/")[2], errors="surrogateescape")
    return place.rstrip("/").rpartition("/")[2]


def join_url(folder: str, name: str) -> str:
    """The address of the file or sub-path `name` seen from the address of a folder, whose query is kept.

    `name` is a name as on a disk, not a URL: of http(s), "#", "?" and "%" in it are encoded.
    """
    if not is_http(folder):
        return f"{folder.rstrip('/')}/{name.lstrip('/')}"
    scheme, _, rest = folder.partition("://")
    host, path, query = _split(rest)
    encoded = quote(_bytes(name.lstrip("/")), safe="/:@!$&'()*+,;=~")
    return f"{scheme}://{host}{path.rstrip('/')}/{encoded}{query}"


def add_suffix(address: str, suffix: str) -> str:
    """The address of the file beside another one whose name is longer by `suffix`; the query is kept."""
    if not is_http(address):
        return address + suffix
    scheme, _, rest = address.partition("://")
    host, path, query = _split(rest)
    return f"{scheme}://{host}{path}{suffix}{query}"


def folder_url(address: str, *, keep_query: bool = True) -> str:
    """The address of the folder that a file lies in.

    With `keep_query` a signature goes along, as files of one set need it. Without, it is the base that relative
    references of a table are seen from (RFC 3986, 5.2: the query of the base is not inherited).
    """
    if not is_http(address):
        return address.rpartition("/")[0]
    scheme, _, rest = address.partition("://")
    host, path, query = _split(rest)
    return f"{scheme}://{host}{path.rpartition('/')[0]}{query if keep_query else ''}"


def strip_query(address: str) -> str:
    """An address without query and fragment; those of stores and local names as they are."""
    if not is_http(address):
        return address
    scheme, _, rest = address.partition("://")
    host, path, _ = _split(rest)
    return f"{scheme}://{host}{path}"


def with_query_of(address: str, other: str) -> str:
    """`address` with the query of `other`, where both are of web servers."""
    if not (is_http(address) and is_http(other)):
        return address
    return address + _split(other.partition("://")[2])[2]


def file_url_path(address: str) -> str:
    """The local name that a file:// address means."""
    rest = address[len("file://") :]
    host, slash, path = rest.partition("/")
    return unquote(slash + path, errors="surrogateescape") if host in ("", "localhost") else unquote(rest)


def has_suffix(place: str | Path, suffixes: Sequence[str]) -> bool:
    """Whether the file name of a place ends in one of `suffixes`, in letters of any case."""
    name = url_name(place) if isinstance(place, str) else place.name
    return name.lower().endswith(tuple(suffixes))


def _split(rest: str) -> tuple[str, str, str]:
    """Host, path and query (with its "?") of what stands behind ://; the fragment goes."""
    rest = rest.partition("#")[0]
    before, mark, query = rest.partition("?")
    host, slash, path = before.partition("/")
    return host, slash + path, mark + query if query else ""


def _encode(text: str, safe: str) -> str:
    return quote(_bytes(_LONE_PERCENT.sub("%25", text)), safe=safe)


def _bytes(text: str) -> bytes:
    """UTF-8, or the bytes of a name that is not UTF-8; other lone surrogates (of JSON escapes) as they are."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
