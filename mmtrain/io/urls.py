"""URLs as people and tables write them: checked, percent-encoded once, joined (RFC 3986). No torch.

Only http(s) addresses are percent-encoded: the names in an object store (s3://bucket/a b#1.jpg) are what they are.
"""

import re
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from mmtrain.io.errors import InputError
from mmtrain.io.text import printable, redact

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
