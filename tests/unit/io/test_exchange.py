"""A folder changes places with another: crashes at any moment leave the old content or the new one, and all else."""

import contextlib
import os
from pathlib import Path

import pytest

from mmtrain.io import exchange
from mmtrain.io.exchange import finish_replacement, replace_folder


class Killed(BaseException):
    """Stands for SIGKILL."""


OWNED = ("a.tar", "b.tar", "c.tar")


def made(folder: Path) -> tuple[Path, Path]:
    """A new folder, and an old one with files and a folder of somebody else."""
    old, new = folder / "set", folder / "set" / ".work" / "new"
    (old / "pics").mkdir(parents=True)
    (old / "pics" / "a.jpg").write_text("pic")
    (old / "notes.txt").write_text("mine")
    (old / "link").symlink_to("notes.txt")
    for name in ("a.tar", "b.tar"):
        (old / name).write_text("old")
    new.mkdir(parents=True)
    (new / "a.tar").write_text("new")
    return new, old


def tars(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.tar")}


OLD, NEW = {"a.tar": "old", "b.tar": "old"}, {"a.tar": "new"}


def check_whole(folder: Path, parent: Path) -> None:
    assert tars(folder) == NEW
    assert (folder / "notes.txt").read_text() == "mine" and os.readlink(folder / "link") == "notes.txt"
    assert (folder / "pics" / "a.jpg").read_text() == "pic"
    assert [path.name for path in parent.iterdir()] == ["set"]


@pytest.mark.parametrize("supported", [True, False])
def test_only_owned_entries_are_replaced(tmp_path, monkeypatch, supported) -> None:
    if not supported:
        monkeypatch.setattr(exchange, "_rename_exchange", unsupported)
    new, old = made(tmp_path)
    replace_folder(new, old, OWNED)
    check_whole(old, tmp_path)


def unsupported(first: Path, second: Path) -> None:
    raise OSError(22, "Invalid argument")


def test_a_link_to_the_folder_keeps_pointing_to_it(tmp_path: Path) -> None:
    new, old = made(tmp_path / "real")
    (tmp_path / "link").symlink_to(old)
    replace_folder(new, tmp_path / "link", OWNED)
    assert (tmp_path / "link").is_symlink()
    check_whole(old, tmp_path / "real")


def test_a_name_that_is_taken_changes_nothing(tmp_path: Path) -> None:
    new, old = made(tmp_path)
    (new / "notes.txt").write_text("other")
    with pytest.raises(FileExistsError, match="notes.txt"):
        replace_folder(new, old, OWNED)
    assert tars(old) == OLD and (old / "notes.txt").read_text() == "mine" and new.exists()


@pytest.mark.parametrize("supported", [True, False])
@pytest.mark.parametrize("moment", range(1, 14))
def test_a_kill_leaves_old_or_new_and_can_be_finished(tmp_path, monkeypatch, moment, supported) -> None:
    new, old = made(tmp_path)
    left = [moment]

    def counted(call):
        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return call(*args, **kwargs)

        return wrapped

    if not supported:
        monkeypatch.setattr(exchange, "_rename_exchange", unsupported)
    with monkeypatch.context() as patched:
        for module, name in (
            (os, "rename"),
            (os, "link"),
            (os, "replace"),
            (os, "unlink"),
            (os, "rmdir"),
            (os, "scandir"),
        ):
            patched.setattr(module, name, counted(getattr(os, name)))
        if supported:
            patched.setattr(exchange, "_rename_exchange", counted(exchange._rename_exchange))
        with contextlib.suppress(Killed):
            replace_folder(new, old, OWNED)
    if old.exists():
        assert tars(old) in (OLD, NEW) and (old / "notes.txt").read_text() == "mine"
    else:
        assert not supported  # between two renames: the next call gives the old one its name back
    finish_replacement(old)
    assert tars(old) in (OLD, NEW)
    assert (old / "notes.txt").read_text() == "mine" and (old / "pics" / "a.jpg").read_text() == "pic"


@pytest.mark.parametrize("marker", [b"", b"mine", b"[" * 100_000, b"{}", b"[1]", b"null", b"\xff"])
def test_a_marker_of_somebody_else_is_left_alone(tmp_path: Path, marker: bytes) -> None:
    _, old = made(tmp_path)
    theirs = tmp_path / ".set.1-abcd.partial"
    theirs.mkdir()
    (theirs / exchange.MARKER).write_bytes(marker)
    (theirs / "a.tar").write_text("mine")
    finish_replacement(old)
    assert (theirs / "a.tar").read_text() == "mine" and tars(old) == OLD
