"""URLs as people and tables write them: told from local names, percent-encoded once, joined (RFC 3986). No torch.

An address is SCHEME://..., in letters of any case; `pipe:COMMAND` stands for what a command writes; all else is a local
name. Only http(s) addresses are percent-encoded and have a query: the names in an object store (s3://bucket/a b#1.jpg)
are what they are.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from mmtrain.io.errors import InputError
from mmtrain.io.text import printable, redact

PIPE = "pipe:"
FILE_SCHEME = "file"
HTTP_SCHEMES = ("http", "https")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_RESERVED = "!$&'()*+,/:;=@[]~%"  # stay as they are in a path; in a query also "?"


def scheme_of(text: str) -> str:
    """The scheme of `scheme://...` in lower case; empty for anything else."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""


def is_http(text: str) -> bool:
    """Whether `text` is an http or https address, in any case."""
    return scheme_of(text) in HTTP_SCHEMES


def is_remote(place: str) -> bool:
    """Whether a place is an address or a command rather than a local name, which file:// addresses are too."""
    return place.startswith(PIPE) or scheme_of(place) not in ("", FILE_SCHEME)


def parse_url(text: str) -> SplitResult:
    """The parts of an http(s) address as it is sent: characters that no URL has are percent-encoded, once.

    The fragment is dropped. Raises InputError naming what is wrong.
    """
    scheme, authority, rest = _split(text)
    try:
        path, mark, query = rest.partition("#")[0].partition("?")
        parts = urlsplit(f"{scheme}://{authority}{_encode(path, _RESERVED)}{mark}{_encode(query, _RESERVED + '?')}")
        if scheme in HTTP_SCHEMES and (not parts.hostname or parts.port == 0):
            raise ValueError("no host" if not parts.hostname else "port 0")
        if parts.hostname:
            parts.hostname.encode("idna")
        return parts
    except ValueError as error:  # of urlsplit, of .port, of encoding; UnicodeError is one
        raise InputError(f"{printable(redact(text))} is not an address: {error}") from error


def encode_url(text: str) -> str:
    """An http(s) address as it is sent, see `parse_url`; addresses of other schemes as they are."""
    return urlunsplit(parse_url(text)) if is_http(text) else text


def normalize_url(place: str) -> str:
    """A place as servers and stores are asked for it: `encode_url`, and the scheme in lower case for all of them."""
    scheme = scheme_of(place)
    return encode_url(place) if scheme in HTTP_SCHEMES else scheme + place[len(scheme) :]


def join_url(folder: str, name: str) -> str:
    """The address of the file `name`, seen from the address `folder`; a query of the folder goes with it.

    `name` is a relative path, not an address: what in it has a meaning in URLs (# % ?) is encoded for http(s).
    """
    name = name.lstrip("/")
    if not is_http(folder):
        return f"{folder.rstrip('/')}/{name}"
    try:
        encoded = quote(name, safe="/!$&'()*+,:;=@~", errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise InputError(f"{printable(name)} cannot be part of an address: {error.reason}") from error
    parts = parse_url(folder)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{encoded}"))


def parent_url(url: str) -> str:
    """The address of the folder that a file lies in; a query stays, as signatures may hold for the folder."""
    if not is_http(url):
        return url.rstrip("/").rpartition("/")[0]
    parts = parse_url(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/").rpartition("/")[0]))


def name_of_url(url: str) -> str:
    """The file name at the end of an address, without query and fragment, as it is written there."""
    path = url.partition("#")[0].partition("?")[0] if is_http(url) else url
    return path.rstrip("/").rpartition("/")[2]


def file_name(place: str) -> str:
    """The name that the file at an address has on a disk: without query, decoded. Of other places the last part."""
    written = name_of_url(place)
    name = unquote(written, errors="surrogateescape") if is_http(place) else written
    return written if "/" in name else name


def shown_name(place: str) -> str:
    """The file name of a place without what may be secret: of a command the first tar that it names."""
    if not place.startswith(PIPE):
        return file_name(place)
    found = re.search(r"[^\s/'\"=?&]+\.tar\b", place)
    return found[0] if found else redact(place)


def has_suffix(place: str | Path, suffixes: Sequence[str]) -> bool:
    """Whether the file name of a place ends in one of `suffixes` (lower case), in letters of any case."""
    name = place.name if isinstance(place, Path) else file_name(place)
    return name.lower().endswith(tuple(suffixes))


def add_suffix(url: str, suffix: str) -> str:
    """The address of the file beside another one whose name is longer by `suffix`; a query stays."""
    if not is_http(url):
        return url + suffix
    parts = parse_url(url)
    return urlunsplit(parts._replace(path=parts.path + suffix))


def strip_query(url: str) -> str:
    """An http(s) address without query and fragment; other places as they are."""
    return urlunsplit(parse_url(url)._replace(query="")) if is_http(url) else url


def path_of_file_url(url: str) -> str:
    """The local name that a file:// address means."""
    host, slash, path = url[len("file://") :].partition("/")
    return unquote(("" if host == "localhost" else host) + slash + path, errors="surrogateescape")


def _split(text: str) -> tuple[str, str, str]:
    """Scheme, authority and all behind it; cut by hand, as `urlsplit` drops control characters without a word."""
    found = _SCHEME.match(text)
    if not found:
        raise InputError(f"{printable(redact(text))} is not an address; wanted SCHEME://HOST/PATH")
    rest = text[found.end() :]
    end = next((place for place, sign in enumerate(rest) if sign in "/?#"), len(rest))
    authority = rest[:end]
    if any(sign.isspace() or not sign.isprintable() or sign in '\\<>"{}|^`' for sign in authority):
        raise InputError(f"{printable(redact(text))} is not an address: its host has a character that no host has")
    return found[1].lower(), authority, rest[end:]


def _encode(text: str, safe: str) -> str:
    return quote(_STRAY_PERCENT.sub("%25", text), safe=safe, errors="surrogateescape")
