"""Where a command may write."""

import os
from pathlib import Path

import pytest

from mmtrain.io.errors import StorageError
from mmtrain.io.replace import check_output_file, check_output_folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dead").symlink_to("gone")
    (tmp_path / "input").write_text("in")
    (tmp_path / "to-input").symlink_to("input")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder", "which is a folder"),
        (".", "which is a folder"),
        ("dead", "a link to nothing"),
        ("pipe", "no regular file"),
        ("input", "an input"),
        ("to-input", "an input"),
        ("folder/../input", "an input"),
        ("file/x", "is no folder"),
        ("gone/x", "does not exist"),
        ("run/checkpoints/x", "among the checkpoints"),
    ],
)
def test_a_file_is_refused_whatever_the_flag(place, monkeypatch, name, reason, overwrite) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(StorageError, match=reason):
        check_output_file(name, flag="--out", overwrite=overwrite, inputs=["input"])
    assert (place / "file").read_text() == "mine"


def test_a_file_that_exists_needs_the_flag_and_to_be_ours(place: Path) -> None:
    for name in ("file", "link"):
        with pytest.raises(StorageError, match="replace it with --overwrite"):
            check_output_file(place / name, flag="--out", overwrite=False)
        check_output_file(place / name, flag="--out", overwrite=True)
        with pytest.raises(StorageError, match="not a model"):
            check_output_file(place / name, flag="--out", overwrite=True, is_ours=lambda _: False, kind="a model")
    check_output_file(place / "new", flag="--out", overwrite=False)
    check_output_file(place / "a" / "new", flag="--out", overwrite=False, make_parents=True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file", "which is a file"),
        ("link", "which is a file"),
        ("dead", "a link to nothing"),
        ("file/x", "is no folder"),
        ("run/checkpoints/x", "among the checkpoints"),
        (".", "kept apart"),
        ("run", "folder of a run"),
    ],
)
def test_a_folder_is_refused_whatever_it_is_said_to_be(place, name, reason) -> None:
    with pytest.raises(StorageError, match=reason):
        check_output_folder(
            place / name, flag="OUT", overwrite=True, inputs=[("INPUT", place / "to-input")], is_ours=lambda _: True
        )


def test_a_folder_with_content_needs_the_flag_and_to_be_ours(place: Path) -> None:
    check_output_folder(place / "folder", flag="OUT", overwrite=False, is_ours=lambda _: False)
    (place / "folder" / "a").write_text("a")
    with pytest.raises(StorageError, match="replace it with --overwrite"):
        check_output_folder(place / "folder", flag="OUT", overwrite=False, is_ours=lambda _: True)
    with pytest.raises(StorageError, match="not an export"):
        check_output_folder(place / "folder", flag="OUT", overwrite=True, is_ours=lambda _: False, kind="an export")
    check_output_folder(place / "folder", flag="OUT", overwrite=True, is_ours=lambda _: True)


def test_the_working_folder_is_not_swapped(place: Path, monkeypatch) -> None:
    (place / "folder" / "sub").mkdir()
    monkeypatch.chdir(place / "folder" / "sub")
    with pytest.raises(StorageError, match="the folder you are in"):
        check_output_folder(place / "folder", flag="OUT", overwrite=True, is_ours=lambda _: True)
