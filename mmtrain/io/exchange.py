"""Atomic replacement of a folder by another: renameat2(2) with RENAME_EXCHANGE, else two renames. No torch.

The folder that is replaced keeps what the caller does not own: such files are linked into the new folder before the
exchange, such folders are moved into it right after. At every moment the path names the old content or the new one. A
marker inside the old folder tells `finish_replacement` what a killed process has left to do.
"""

import contextlib
import ctypes
import errno
import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from mmtrain.io.atomic import PARTIAL, atomic_write, sync_folder, temporary_name
from mmtrain.io.json_text import JsonError, lenient_json

# In a folder that is about to be replaced, and in what it has become after that: the names that may go, as JSON.
MARKER = ".mmtrain-replaced"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NOT_SUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV, errno.EPERM}


def replace_folder(new: Path, target: Path, owned: Collection[str]) -> None:
    """Let `target` name the folder `new`, which lies on the same file system, and remove the old content.

    Of an old folder only the entries go whose names are `owned`; all others are in the new one. `target` that is a link
    keeps pointing where it does. FileExistsError where an entry that stays has the name of a new one: nothing has
    changed then.
    """
    target = Path(os.path.realpath(target))
    finish_replacement(target)
    if not os.path.lexists(target):
        os.rename(new, target)
        sync_folder(target.parent)
        return
    kept = [entry for entry in os.scandir(target) if entry.name != MARKER and entry.name not in owned]
    for entry in kept:
        if os.path.lexists(new / entry.name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target / entry.name))
    shutil.copystat(target, new)
    for entry in kept:
        if not entry.is_dir(follow_symlinks=False):
            _link(Path(entry.path), new / entry.name)
    if new.parent != target.parent:  # a folder cannot change places with one inside it
        beside = temporary_name(target)
        os.rename(new, beside)
        new = beside
    atomic_write(target / MARKER, json.dumps(sorted(owned)))
    aside = _exchange(new, target)
    sync_folder(target.parent)
    _dispose(aside, target, set(owned))


def finish_replacement(target: Path) -> None:
    """Do what a process that was killed amid `replace_folder` has left undone; nothing where there is nothing."""
    target = Path(os.path.realpath(target))
    for folder in temporary_folders(target):
        if (owned := _owned_in(folder)) is not None:
            if os.path.lexists(target):
                _dispose(folder, target, owned)
            else:  # between two renames, where folders cannot be exchanged
                os.rename(folder, target)


def temporary_folders(target: Path) -> list[Path]:
    """The folders beside `target` whose names are temporary ones of it."""
    if not target.parent.is_dir():
        return []
    prefix = f".{target.name[:120]}."
    return [
        Path(entry.path)
        for entry in os.scandir(target.parent)
        if entry.name.startswith(prefix) and entry.name.endswith(PARTIAL) and entry.is_dir(follow_symlinks=False)
    ]


def _exchange(new: Path, target: Path) -> Path:
    """Exchange two folders; returns where the old one is then."""
    try:
        _rename_exchange(new, target)
        return new
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    aside = temporary_name(target)
    os.rename(target, aside)
    os.rename(new, target)
    return aside


def _rename_exchange(first: Path, second: Path) -> None:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:  # an older glibc, or another system
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    names = os.fsencode(first), os.fsencode(second)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(second))


def _owned_in(folder: Path) -> set[str] | None:
    """The names that may go, as the marker of a replaced folder says; None where it has no marker of ours."""
    try:
        names = lenient_json((folder / MARKER).read_bytes())
    except (OSError, JsonError):
        return None
    return set(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _dispose(old: Path, target: Path, owned: Collection[str]) -> None:
    """Remove the old folder; what is not `owned` and not in `target` yet goes there.

    Two processes may do this at once: what is gone is done.
    """
    with contextlib.suppress(FileNotFoundError):
        for entry in list(os.scandir(old)):
            path, there = Path(entry.path), target / entry.name
            if entry.name == MARKER:
                continue
            if entry.name in owned:
                shutil.rmtree(path) if entry.is_dir(follow_symlinks=False) else path.unlink(missing_ok=True)
            elif not os.path.lexists(there):
                os.rename(path, there)
            elif os.path.samestat(os.lstat(path), os.lstat(there)):  # linked before the exchange
                path.unlink(missing_ok=True)
        if os.listdir(old) == [MARKER]:  # else something stands in `target` under the same name: it stays here
            (old / MARKER).unlink()
            old.rmdir()


def _link(path: Path, name: Path) -> None:
    """A second name of a file; where the file system has none, the file is moved after the exchange instead."""
    try:
        os.link(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED | {errno.EMLINK}:
            raise
