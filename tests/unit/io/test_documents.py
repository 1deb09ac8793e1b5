"""Files of others: what is read is a regular file, never a pipe that waits for a writer."""

import os
from pathlib import Path

import pytest

from mmtrain.data.faults import DataError
from mmtrain.data.index import read_sidecar
from mmtrain.data.manifest import read_manifest
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.io.documents import DocumentError, NotRegularError, read_document, read_regular


def odd(folder: Path, kind: str) -> Path:
    path = folder / "odd"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_regular_file_is_not_read(kind: str, tmp_path: Path) -> None:
    path = odd(tmp_path, kind)
    said = "a folder" if kind == "folder" else "no regular file"
    with pytest.raises(NotRegularError, match=said):
        read_regular(path)
    with pytest.raises(DocumentError, match=f"{path} is {said}"):
        read_document(path, max_bytes=9)


def test_a_regular_file_is_read_also_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").symlink_to("a")
    assert read_regular(tmp_path / "b") == read_document(tmp_path / "a", max_bytes=7) == b"content"
    with pytest.raises(DocumentError, match="has 7 bytes; wanted at most 6"):
        read_document(tmp_path / "a", max_bytes=6)


def test_no_reader_of_data_waits_for_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "x.tar").touch()
    for name in ("manifest.json", "x.tar.index", "t.model"):
        os.mkfifo(tmp_path / name)
    readers = (
        lambda: read_manifest(tmp_path),
        lambda: read_sidecar(tmp_path / "x.tar"),
        lambda: Tokenizer(tmp_path / "t.model"),
    )
    for read in readers:
        with pytest.raises(DataError, match="no regular file"):
            read()
