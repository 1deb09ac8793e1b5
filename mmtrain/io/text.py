"""Text from outside made fit for terminals, logs and published files. No torch."""

import re
from urllib.parse import urlsplit, urlunsplit

HIDDEN = "***"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,40}://[^\s'\"<>]+")
_PIPE = re.compile(r"(?i)pipe:(?!\*\*\*).*", re.DOTALL)  # not twice: what stands behind one that is hidden is a message
# Headers and arguments of commands that carry a secret, as in `curl -H "Authorization: Bearer x"` or `--token=x`.
_SECRET = re.compile(
    r"(?i)(authorization|x-api-key|cookie|token|secret|password|passwd|signature|api[_-]?key)(\"?\s*[:=]\s*)[^\s'\"]+"
    r"(\s+[^\s'\"]+)?"
)
# Parameters of signed addresses (S3, GCS, Azure, CloudFront, CDNs), and values that nobody writes by hand.
_CREDENTIAL = re.compile(
    r"(?i)&[^=&]*(?:sig|token|key|secret|passw|pwd|auth|credential|policy|expires|session|hmac|x-amz|x-goog)[^=&]*="
    r"|=[A-Za-z0-9+/_%.~-]{32,}"
)


def printable(text: str) -> str:
    """`text` in which every control character and lone surrogate is an escape: it steers no terminal and encodes.

    A name that is not UTF-8 (PEP 383 surrogates) shows its bytes as \\xNN.
    """
    return "".join(map(_visible, text))


def encodable(text: str) -> str:
    """`text` in which every lone surrogate is an escape and all else stands as it is: it can be written as UTF-8."""
    return (
        text if text.isascii() else "".join(_visible(sign) if "\ud800" <= sign <= "\udfff" else sign for sign in text)
    )


def _visible(sign: str) -> str:
    if "\udc80" <= sign <= "\udcff":  # surrogateescape: the byte that could not be decoded
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign if sign.isprintable() else ascii(sign)[1:-1]


def redact(text: str) -> str:
    """`text` with what may be secret in addresses hidden: user and password, query, fragment; of pipe: the command."""
    text = _PIPE.sub(f"pipe:{HIDDEN}", text)
    return _SECRET.sub(rf"\1\2{HIDDEN}", _URL.sub(lambda found: _redact_url(found[0]), text))


def without_credentials(text: str) -> str:
    """`text` with addresses as a data set may publish them: user, password and signed queries hidden.

    A query without anything like a credential stays, for it may be all that tells one image from another.
    """
    return _URL.sub(lambda found: _redact_url(found[0], only_credentials=True), text)


def _redact_url(url: str, *, only_credentials: bool = False) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # as of http://[::1/
        return re.sub(r"//[^/]*@", f"//{HIDDEN}@", url.partition("?")[0].partition("#")[0])
    if only_credentials and "@" not in parts.netloc and not _CREDENTIAL.search(f"&{parts.query}&{parts.fragment}"):
        return url
    host = f"{HIDDEN}@{parts.netloc.rpartition('@')[2]}" if "@" in parts.netloc else parts.netloc
    return urlunsplit((parts.scheme, host, parts.path, HIDDEN if parts.query else "", HIDDEN if parts.fragment else ""))
