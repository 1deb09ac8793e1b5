"""Bounded reading of small documents (JSON, configs) that may come from anyone: size, kind of file, depth. No torch.

A file is read only if it is a regular one: a pipe would hang, a device never end. Sizes are checked before anything is
read, and what is nested too deeply is refused like any other malformed document.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from mmtrain.io.errors import InputError
from mmtrain.io.file_kinds import HEAD_BYTES, LFS_POINTER, describe_bytes
from mmtrain.io.json_text import JsonError, lenient_json
from mmtrain.io.text import printable

MAX_JSON_BYTES = 256 * 2**20  # an index of a checkpoint of thousands of ranks has tens of MiB
MAX_SHOWN = 200  # characters of a parser's own words in a message


class DocumentError(InputError):
    """A document cannot be read: no regular file, too large, or malformed."""


class NotRegularError(OSError):
    """A file is a folder, a named pipe or a device."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, open for reading; NotRegularError for others: a named pipe would wait for a writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise NotRegularError(errno.EINVAL, "a folder" if stat.S_ISDIR(mode) else "no regular file", os.fspath(path))


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """The content of a regular file; see `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def read_document(path: Path, *, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes`; DocumentError otherwise, OSError where it is not there."""
    try:
        with open_regular(path) as file:
            content, size = file.read(max_bytes + 1), os.fstat(file.fileno()).st_size
    except NotRegularError as error:
        raise DocumentError(f"{path} is {error.strerror}") from None
    if len(content) > max_bytes:
        raise DocumentError(f"{path} has {size:,} bytes; wanted at most {max_bytes:,}")
    if content.startswith(LFS_POINTER):
        raise DocumentError(f"{path} is {describe_bytes(content[:HEAD_BYTES])}")
    return content


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The value of a JSON file. DocumentError, which names the file, where it is none; OSError where there is none."""
    return parse_json(read_document(path, max_bytes=max_bytes), str(path))


def read_json_object(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """As `read_json`, but DocumentError also where the file holds no object."""
    value = read_json(path, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise DocumentError(f"{path} holds {type(value).__name__}; wanted a JSON object")
    return value


def parse_json(content: bytes, name: str) -> Any:
    """The value of `content`; DocumentError, with `name` for the user, where it is no JSON or nested too deeply."""
    try:
        return lenient_json(content)
    except JsonError as error:
        raise DocumentError(f"{name}: {printable(str(error))[:MAX_SHOWN]}") from None
