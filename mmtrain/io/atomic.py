"""Atomic durable writes: a file or folder is seen complete or not at all, also after a crash. No torch.

A write goes to a temporary name beside its target, is flushed to the disk and then renamed (POSIX rename(2) is atomic
within a file system). Temporary names are new for each try and opened with O_EXCL, so that no link is followed and no
earlier writer that is still alive can reach the file. They begin with a dot and end with ".partial".
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"
FILE_MODE = 0o666  # less the umask, as open() creates files


def atomic_write(path: Path, content: bytes | str, *, durable: bool = True) -> Path:
    """Replace `path` by a file with `content` (text as UTF-8); returns `path`. See `atomic_open`."""
    with atomic_open(path, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path


@contextmanager
def atomic_open(path: Path, *, durable: bool = True, overwrite: bool = True) -> Iterator[BinaryIO]:
    """A binary file for writing that becomes `path` when the block ends, and vanishes when it raises.

    `durable` waits until content and name are on the disk (fsync). Without `overwrite`, FileExistsError where `path`
    exists when the block ends: nothing that exists is touched. OSError carries the name of the target.
    """
    path = Path(path)
    temporary = temporary_name(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        publish(temporary, path, durable=durable, overwrite=overwrite)
    except OSError as error:
        # What is asked of the user is about the target; the temporary name says nothing to anyone.
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill that becomes `path` when the block ends, and vanishes when it raises.

    FileExistsError where `path` exists by then; whoever may replace a folder removes the old one first, by what it
    knows it has written (see `mmtrain.io.replace`).
    """
    path = Path(path)
    temporary = temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        sync_tree(temporary)
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.rename(temporary, path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """A name beside `path` that nobody else uses, hidden and recognizable as a temporary one."""
    return path.with_name(f".{path.name[:120]}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers have left in `folder`; only for who knows that nobody else writes there now."""
    for path in folder.glob(f".*-????????{PARTIAL}"):
        if path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def publish(temporary: Path, path: Path, *, durable: bool = True, overwrite: bool = True) -> None:
    """Rename a finished file to `path`; FileExistsError without `overwrite` where something of that name exists."""
    if overwrite:
        os.replace(temporary, path)
    else:
        os.link(temporary, path)  # unlike rename(2), link(2) never replaces
        temporary.unlink()
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until all files below `folder`, and their names, are on the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))
