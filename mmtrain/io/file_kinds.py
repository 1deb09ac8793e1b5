"""Magic numbers: what a file is that is not what its name promises, and how to mend that. No torch."""

import os
from pathlib import Path

HEAD_BYTES = 1024  # enough for every signature below
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
A_TAR, A_PARQUET, EMPTY = "a tar archive", "a Parquet table", "empty"
_TAR_MAGIC = 257  # offset of "ustar" in the first header (POSIX.1-1988)

# Signature at the start of the file, and what is said of it. Compressed files name the command that unpacks them.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (LFS_POINTER, "a git-lfs pointer and not the file itself; `git lfs pull` fetches it"),
    (b"\x1f\x8b", "compressed with gzip; unpack it with `gunzip`"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it with `unzstd`"),
    (b"BZh", "compressed with bzip2; unpack it with `bunzip2`"),
    (b"\xfd7zXZ\x00", "compressed with xz; unpack it with `unxz`"),
    (b"\x04\x22\x4d\x18", "compressed with lz4; unpack it with `unlz4`"),
    (b"\x1f\x9d", "compressed with compress; unpack it with `uncompress`"),
    (b"LZIP", "compressed with lzip; unpack it with `lzip -d`"),
    (b"PK\x03\x04", "a zip archive; unpack it with `unzip`"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it with `7z x`"),
    (b"Rar!\x1a\x07", "a rar archive; unpack it with `unrar x`"),
    (b"\x00\x05\x16\x07", "an AppleDouble file, which macOS writes beside others; delete it"),
    (b"\x00\x05\x16\x00", "an AppleSingle file, which macOS writes"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"PAR1", A_PARQUET),
    (b"ARROW1", "an Arrow file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"%PDF-", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\x00", "an SQLite database"),
)
_MARKUP = (
    (b"<!doctype html", "an HTML page, as a server sends in place of a file"),
    (b"<html", "an HTML page, as a server sends in place of a file"),
    (b"<?xml", "an XML text, as a store sends in place of a file"),
)


def describe_bytes(head: bytes) -> str | None:
    """What the file is that begins with `head` (its first HEAD_BYTES, or all of it); None where nobody can tell.

    A phrase that goes on after "PATH is": compressed files and archives, git-lfs pointers, images, tables, web pages,
    empty files, files of zeros. A tar is "a tar archive".
    """
    if not head:
        return EMPTY
    if head[_TAR_MAGIC : _TAR_MAGIC + 5] == b"ustar":
        return A_TAR
    for signature, phrase in _SIGNATURES:
        if head.startswith(signature):
            return phrase
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP image"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, phrase in _MARKUP:
        if text.startswith(beginning):
            return phrase
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "a text in UTF-16"
    if not head.strip(b"\0"):
        return "a file of zeros, as a disk leaves that was full or lost power"
    return None


def describe_file(path: str | os.PathLike[str]) -> str | None:
    """As `describe_bytes`, of a file; OSError where it cannot be read."""
    with open(Path(path), "rb") as file:
        return describe_bytes(file.read(HEAD_BYTES))
