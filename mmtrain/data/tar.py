"""Walk the headers of a tar file: where each regular file lies in it, without reading its bytes.

Formats: USTAR (POSIX.1-1988), GNU long names and base-256 sizes, POSIX.1-2001 extended headers (`path`, `size`).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mmtrain.io.file_kinds import A_TAR, describe_bytes

BLOCK_BYTES = 512
RECORD_BYTES = 20 * BLOCK_BYTES  # tars are padded with zeros to a multiple of it; an empty one is one
SCANNED_BYTES = 1 << 20
# Python's tarfile and GNU tar write these for plain files; "\0" is the mark of tars older than USTAR.
REGULAR_KINDS = (b"0", b"\0", b"7")
# Longer names and notes than any tool writes; the walk keeps them in memory.
MAX_EXTENSION_BYTES = 1 << 20
MAX_LENGTH_DIGITS = 20  # of a number written in decimals


@dataclass(frozen=True)
class Member:
    """One entry of a tar."""

    name: str
    offset: int  # bytes from the start of the tar to its first byte
    size: int  # bytes
    kind: bytes = b"0"  # the header's type flag

    @property
    def is_file(self) -> bool:
        """Whether it holds bytes of its own: no folder, link, device or pipe."""
        return self.kind in REGULAR_KINDS and not self.name.endswith("/")


class TarDamage(Exception):
    """The walk cannot go on; `member` is the name of the file that is cut, where there is one."""

    def __init__(self, reason: str, member: str = "") -> None:
        super().__init__(reason)
        self.member = member


def tar_members(path: Path) -> Iterator[Member]:
    """The regular files of the tar at `path`, in order; TarDamage after the last whole one if the tar is damaged."""
    return (member for member in tar_entries(path) if member.is_file)


def tar_entries(path: Path) -> Iterator[Member]:
    """As `tar_members`, with folders, links, devices and whatever else the tar holds."""
    with open(path, "rb") as tar:
        num_bytes = os.fstat(tar.fileno()).st_size
        yield from _walk(tar, num_bytes)


def _walk(tar: BinaryIO, num_bytes: int) -> Iterator[Member]:
    position, extended = 0, {}
    while True:
        header = tar.read(BLOCK_BYTES)
        if position == 0:
            _refuse_other_kinds(header, tar, num_bytes)
        if not header:
            raise TarDamage("ends without the mark that closes a tar, so it may have been cut")
        if len(header) < BLOCK_BYTES:
            raise TarDamage(f"is cut inside the header at byte {position}")
        if not header.strip(b"\0"):
            _refuse_what_follows(tar, num_bytes)
            return
        name, size, kind = _read_header(header, position)
        name, size = extended.get("path", name), _stated_size(extended, size)
        position += BLOCK_BYTES
        if position + size > num_bytes:
            raise TarDamage(f"is cut inside {name}: {size} bytes promised, {num_bytes - position} there", name)
        if kind in (b"L", b"x"):
            if size > MAX_EXTENSION_BYTES:
                raise TarDamage(f"holds an extended header of {size} bytes, at most {MAX_EXTENSION_BYTES} are read")
            extended = extended | _extension(kind, tar.read(size))
        elif kind not in (b"g", b"K"):
            yield Member(name, position, size, kind)
            extended = {}
        position += -(-size // BLOCK_BYTES) * BLOCK_BYTES
        tar.seek(position)


def _refuse_other_kinds(header: bytes, tar: BinaryIO, num_bytes: int) -> None:
    """TarDamage that names what a file is that begins with no header: compressed, a git-lfs pointer, zeros."""
    if num_bytes > RECORD_BYTES and not header.strip(b"\0"):
        if _first_content(tar) is None:
            raise TarDamage("holds nothing but zeros, as a disk leaves that was full or lost power")
        tar.seek(len(header))
    try:
        is_tar = len(header) == BLOCK_BYTES and (not header.strip(b"\0") or bool(_read_header(header, 0)))
    except TarDamage:
        is_tar = False
    if not is_tar and (kind := describe_bytes(header)) not in (None, A_TAR):
        raise TarDamage(f"is {kind}")


def _refuse_what_follows(tar: BinaryIO, num_bytes: int) -> None:
    """TarDamage where anything but zeros stands behind the mark that closes the tar: no reader looks there."""
    if (position := _first_content(tar)) is not None:
        raise TarDamage(
            f"holds {num_bytes - position} bytes behind the mark that closes it, which nobody reads, as tars glued "
            "together with cat or a hole do; join tars with `tar --concatenate`, or name them one by one"
        )


def _first_content(tar: BinaryIO) -> int | None:
    """Offset of the first block from here on that is not all zeros."""
    position = tar.tell()
    while block := tar.read(SCANNED_BYTES):
        if block.strip(b"\0"):
            return position + (len(block) - len(block.lstrip(b"\0"))) // BLOCK_BYTES * BLOCK_BYTES
        position += len(block)
    return None


def _read_header(header: bytes, position: int) -> tuple[str, int, bytes]:
    try:
        stated = _number(header[148:156])
        size = _number(header[124:136])
    except ValueError as error:
        raise TarDamage(f"holds no tar header at byte {position}") from error
    if size < 0 or stated != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
        raise TarDamage(f"holds a damaged header at byte {position}")
    name = _text(header[:100])
    # Only POSIX tars keep a prefix there; GNU ones ("ustar  ") keep times in the same bytes.
    if header[257:263] == b"ustar\0" and (prefix := _text(header[345:500])):
        name = f"{prefix}/{name}"
    return name, size, header[156:157]


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU: too large for the octal digits, so base 256
        return int.from_bytes(field[1:], "big")
    return int(field.split(b"\0")[0].strip() or b"0", 8)


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "surrogateescape")


def _extension(kind: bytes, content: bytes) -> dict[str, str]:
    """What a GNU long name or a POSIX extended header says of the member behind it."""
    if kind == b"L":
        return {"path": _text(content)}
    said, start = {}, 0
    while start < len(content):
        digits, space, _ = content[start : start + MAX_LENGTH_DIGITS + 1].partition(b" ")
        if not space or not digits.isdigit() or int(digits) <= len(digits):
            raise TarDamage("holds a damaged extended header")
        key, _, value = content[start + len(digits) + 1 : start + int(digits) - 1].partition(b"=")
        if key in (b"path", b"size"):
            said[key.decode()] = value.decode("utf-8", "surrogateescape")
        start += int(digits)
    return said


def _stated_size(extended: dict[str, str], size: int) -> int:
    """The size in bytes, from the extended header where that has one."""
    stated = extended.get("size", str(size))
    if not (stated.isascii() and stated.isdigit() and len(stated) <= MAX_LENGTH_DIGITS):
        raise TarDamage(f"holds an extended header with the size {stated[:MAX_LENGTH_DIGITS]!r}")
    return int(stated)
