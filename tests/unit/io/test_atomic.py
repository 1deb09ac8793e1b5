"""Files and folders that are complete or not there."""

from pathlib import Path

import pytest

from mmtrain.io.atomic import atomic_folder, atomic_open, atomic_write


def test_a_failed_write_leaves_the_old_content_and_no_other_name(tmp_path: Path) -> None:
    path = atomic_write(tmp_path / "a", "old")
    with pytest.raises(RuntimeError), atomic_open(path) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_without_overwrite_an_existing_file_stays(tmp_path: Path) -> None:
    path = atomic_write(tmp_path / "a", "old")
    with pytest.raises(FileExistsError), atomic_open(path, overwrite=False) as file:
        file.write(b"new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_os_error_names_the_target(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        atomic_write(tmp_path / "missing" / "a", "x")
    assert caught.value.filename == str(tmp_path / "missing" / "a")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "f") as folder:
        (folder / "a").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(tmp_path / "f") as folder:
        (folder / "a").write_text("whole")
    assert (tmp_path / "f" / "a").read_text() == "whole"
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "f"):
        pass
    assert (tmp_path / "f" / "a").read_text() == "whole"
