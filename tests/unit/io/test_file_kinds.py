"""What a file is by its first bytes."""

import bz2
import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest

from mmtrain.io.file_kinds import describe_bytes, describe_file


def tar_bytes() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (gzip.compress(tar_bytes(), mtime=0), "gunzip"),
        (bz2.compress(tar_bytes()), "bunzip2"),
        (lzma.compress(tar_bytes()), "unxz"),
        (b"\x28\xb5\x2f\xfd\x00", "unzstd"),
        (b"PK\x03\x04", "unzip"),
        (b"\x00\x05\x16\x07\x00", "AppleDouble"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        (b"\n <!DOCTYPE html><html>", "HTML"),
        (b"<?xml version='1.0'?><Error>", "XML"),
        (bytes(512), "zeros"),
        (tar_bytes(), "a tar archive"),
    ],
)
def test_the_kind_is_named_with_what_mends_it(content: bytes, phrase: str) -> None:
    assert phrase in (describe_bytes(content) or "")


@pytest.mark.parametrize("content", [b"{}", b"plain text", b"\x80\x02}", b"mmtrain-index/3\n"])
def test_of_other_bytes_nothing_is_said(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    assert describe_bytes(content) is None and describe_file(tmp_path / "a") is None
