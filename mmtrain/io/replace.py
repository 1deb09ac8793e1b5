"""Outputs of commands: what may be written where, checked before any work. No torch.

Without --overwrite nothing that exists is touched. With it, only what this program has written is replaced, and only
by something complete (`mmtrain.io.atomic`, `mmtrain.io.exchange`). An output never is, holds, or lies in an input, and
never lies among the checkpoints of a run. All paths are compared resolved, so that no link leads around a check.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from mmtrain.io.errors import StorageError

CHECKPOINTS = "checkpoints"  # in a run folder
# What a run writes beside them, and no other command replaces.
RUN_FILES = ("config.yaml", "tokenizer.model", "log.jsonl", "status.json", "lock", "endings", "answers", "stacks",
             "retrieved.png", "answered.png")  # fmt: skip


def resolved(path: str | os.PathLike[str]) -> Path:
    """`path` absolute and without links; of what does not exist, as far as it does."""
    return Path(os.path.realpath(path))


def is_run(folder: Path) -> bool:
    """Whether `folder` is that of a run: it holds checkpoints, or the config and log that training begins with."""
    return (folder / CHECKPOINTS).is_dir() or ((folder / "config.yaml").exists() and (folder / "log.jsonl").exists())


def check_output_file(
    path: str | os.PathLike[str],
    *,
    flag: str,
    overwrite: bool,
    inputs: Iterable[str | os.PathLike[str]] = (),
    is_ours: Callable[[Path], bool] | None = None,
    kind: str = "a file of this command",
    make_parents: bool = False,
) -> Path:
    """`path` where a file may be written to it; StorageError naming `flag` where it may not.

    Refused are: a folder, a device or a pipe, a link to nothing; a file that exists, without `overwrite`, and with it
    one that is not `is_ours` (not `kind`, as the message says); one of `inputs` under any name; a file of a run, or a
    place among its checkpoints; a place whose folder does not exist, unless the caller is to `make_parents`.
    """
    path, shown = Path(path), repr(os.fspath(path))
    real = resolved(path)
    _check_ancestors(path, flag, make_parents=make_parents)
    _check_not_in_checkpoints(real, flag, shown)
    if real.name in RUN_FILES and is_run(real.parent):
        raise StorageError(f"{flag} is {shown}, a file that a run writes itself; name another file")
    if path.is_dir() or not path.name:
        raise StorageError(f"{flag} is {shown}, which is a folder; name a file")
    for given in inputs:
        if resolved(given) == real:
            raise StorageError(f"{flag} is {shown}, which is an input of this command; name another file")
    if not os.path.lexists(path):
        return path
    if not path.exists():
        raise StorageError(f"{flag} is {shown}, a link to nothing; remove it or name another file")
    if not stat.S_ISREG(path.stat().st_mode):
        raise StorageError(f"{flag} is {shown}, which is no regular file; name another file")
    if not overwrite:
        raise StorageError(f"{path} is there already ({flag}); name another file, or replace it with --overwrite")
    if is_ours is not None and not is_ours(path):
        raise StorageError(
            f"{flag} is {shown}, which is not {kind}: --overwrite replaces only those; name another file"
        )
    return path


def check_output_folder(
    path: str | os.PathLike[str],
    *,
    flag: str,
    overwrite: bool,
    inputs: Iterable[tuple[str, str | os.PathLike[str]]] = (),
    is_ours: Callable[[Path], bool] | None = None,
    kind: str = "a folder of this command",
) -> Path:
    """`path` where a folder may be written to it; StorageError naming `flag` where it may not.

    Refused are: a file or a link to nothing; a place inside a file; a place among the checkpoints of a run; one that is
    or holds one of `inputs` (pairs of flag and path), which an overwrite would take along. A folder that exists and is
    not empty is refused without `overwrite`, and with it unless it `is_ours` (is `kind`, as the message says); where
    `is_ours` is None the caller decides about that.
    """
    path, shown = Path(path), repr(os.fspath(path))
    real = resolved(path)
    _check_ancestors(path, flag, make_parents=True)
    _check_not_in_checkpoints(real, flag, shown)
    if path.is_symlink() and not path.exists():
        raise StorageError(f"{flag} is {shown}, a link to nothing; remove it or name another folder")
    if os.path.lexists(path) and not path.is_dir():
        raise StorageError(f"{flag} is {shown}, which is a file; name a folder")
    check_apart(real, inputs, flag, shown)
    if is_ours is None or not path.exists():
        return path
    if not os.listdir(path):
        check_swappable(path, flag)
        return path
    if not overwrite:
        raise StorageError(f"{path} is there already ({flag}); name another folder, or replace it with --overwrite")
    if is_run(path):
        raise StorageError(f"{flag} is {shown}, which is the folder of a run and never replaced; name another folder")
    if not is_ours(path):
        raise StorageError(
            f"{flag} is {shown}, which is not {kind}: --overwrite replaces only those; name another folder"
        )
    check_swappable(path, flag)
    return path


def check_apart(
    output: Path, inputs: Iterable[tuple[str, str | os.PathLike[str]]], flag: str, shown: str | None = None
) -> None:
    """StorageError where one of `inputs` (pairs of flag and path) is `output` or lies in it, links resolved."""
    real, shown = resolved(output), shown or repr(os.fspath(output))
    for name, given in inputs:
        inside = resolved(given)
        if inside == real or real in inside.parents:
            relation = "the same folder" if inside == real else f"inside {flag}"
            raise StorageError(
                f"{name} {os.fspath(given)!r} is {relation} ({flag} is {shown}); an output is kept apart from what it "
                "is made of: name another folder"
            )


def check_swappable(folder: Path, flag: str) -> None:
    """StorageError where `folder` cannot change places with a new one beside it (see `mmtrain.io.exchange`)."""
    real, shown = resolved(folder), repr(os.fspath(folder))
    if os.path.ismount(real):
        raise StorageError(
            f"{flag} is {shown}, a mount point, which cannot be replaced as a whole; name a folder in it"
        )
    if not os.access(real.parent, os.W_OK | os.X_OK):
        raise StorageError(
            f"{flag} is {shown}, but {real.parent} cannot be written, where the new folder is made ready"
        )
    here = resolved(os.curdir)
    if here == real or real in here.parents:
        raise StorageError(
            f"{flag} is {shown}, which holds the folder you are in; change to another one and name it so"
        )


def _check_not_in_checkpoints(real: Path, flag: str, shown: str) -> None:
    for folder in (real, *real.parents):
        if folder.name == CHECKPOINTS and is_run(folder.parent):
            raise StorageError(f"{flag} is {shown}, among the checkpoints of a run; name a place outside of them")


def _check_ancestors(path: Path, flag: str, *, make_parents: bool) -> None:
    """The folder in which `path` is to lie exists, or can be made."""
    parent = path.parent
    if parent.is_dir():
        return
    existing = next((folder for folder in path.parents if os.path.lexists(folder)), parent)
    if not existing.is_dir():
        reason = os.strerror(errno.ENOTDIR)
        raise StorageError(f"{flag} is {os.fspath(path)!r}, but {existing} is no folder ({reason}); name another place")
    if not make_parents:
        raise StorageError(f"{flag} is {os.fspath(path)!r}, but the folder {parent} does not exist; make it first")
