"""Folders and what lies in them: one scan per folder, no question per file. No torch.

Hidden names (a leading dot, as of the AppleDouble files "._x.tar" that macOS leaves on foreign disks) are not used, and
counted. Folders behind links are entered once, whatever circles links make. Dead links and what is neither a file nor
a folder are found by their kind and never opened.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from mmtrain.io.errors import InputError

MAX_LOOKED_AT = 1000  # names of a folder that a hint is taken from
FILE, FOLDER = "a file", "a folder"
DEAD_LINK, ODD = "a dead link", "neither a file nor a folder"
_KINDS = ((stat.S_ISREG, FILE), (stat.S_ISDIR, FOLDER), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"),
          (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))  # fmt: skip


class Entry(NamedTuple):
    """Something that exists, and what it is (of a link: what it leads to)."""

    path: Path
    kind: str  # FILE, FOLDER, or what else it is, as a message says it
    is_link: bool = False
    is_match: bool = False  # found by a pattern rather than named

    def checked(self, label: str) -> "Entry":
        """Itself; InputError where it is neither a file nor a folder."""
        if self.kind in (FILE, FOLDER):
            return self
        raise InputError(f"{label} names {str(self.path)!r}, which is {self.described()}; remove it, or name another")

    def described(self) -> str:
        """What it is; of a dead link also where it leads."""
        if self.kind == DEAD_LINK:
            return f"a dead link to {os.readlink(self.path)!r}"
        return self.kind


@dataclass(frozen=True)
class Listing:
    """The entries of a folder that are wanted, and what else lies there."""

    files: tuple[Entry, ...]  # of the wanted suffixes, sorted by path
    hidden: tuple[str, ...]  # names of wanted suffixes that are hidden
    folders: tuple[Path, ...]  # sub-folders that are not hidden, sorted


def kind_of_mode(mode: int) -> str:
    """What a file of that mode (st_mode) is."""
    return next((kind for fits, kind in _KINDS if fits(mode)), ODD)


def scan_folder(folder: Path, fits: Callable[[str], bool] | None = None) -> Iterator[Entry]:
    """The entries of a folder whose names fit, in no order; only links and odd kinds cost a question of their own."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if fits is None or fits(entry.name):
                yield Entry(folder / entry.name, _kind_of(entry), entry.is_symlink())


def list_folder(folder: Path, suffixes: Sequence[str], label: str) -> Listing:
    """The files of `folder` itself that end in one of `suffixes` (lower case; names in any case).

    InputError naming `label` where such a name is a dead link or a FIFO, or the folder cannot be read.
    """
    files, hidden, folders, wanted = [], [], [], tuple(suffixes)
    with looked_at(folder, label), os.scandir(folder) as entries:
        for entry in entries:
            fits = entry.name.lower().endswith(wanted)
            if entry.name.startswith("."):
                hidden += [entry.name] if fits else []
            elif (kind := _kind_of(entry)) == FILE:
                if fits:
                    files.append((entry.name, entry.is_symlink()))
            elif kind == FOLDER:
                folders.append(folder / entry.name)
            elif fits:
                Entry(folder / entry.name, kind).checked(label)
    found = tuple(Entry(folder / name, FILE, is_link) for name, is_link in sorted(files))
    return Listing(found, tuple(sorted(hidden)), tuple(sorted(folders)))


def may_hold(folder: Path, suffixes: Sequence[str]) -> bool:
    """Whether a look at a folder finds a file of one of `suffixes`; only for a hint: what cannot be read holds none."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name.lower() for entry in islice(entries, MAX_LOOKED_AT)]
    except OSError:
        return False
    return any(name.endswith(tuple(suffixes)) and not name.startswith(".") for name in names)


def walk_files(folder: Path, wanted: Callable[[str], bool], label: str) -> tuple[list[Entry], int]:
    """What of `folder` and its sub-folders has a wanted name, sorted by path; and how many hidden names were passed.

    Dead links without a suffix are among them too: they may have been folders. Kinds are for the caller to check.
    """
    found, num_hidden = [], 0
    for _, entries in _walk(folder, label):
        for entry in entries:
            name = entry.path.name
            if name.startswith("."):
                num_hidden += wanted(name)
            elif entry.kind != FOLDER and (wanted(name) or (entry.kind == DEAD_LINK and not entry.path.suffix)):
                found.append(entry)
    return sorted(found, key=lambda entry: entry.path), num_hidden


def walk_folders(folder: Path, label: str) -> Iterator[Path]:
    """`folder` and all folders below it that are not hidden, each once: first real ones, then those behind links."""
    return (here for here, _ in _walk(folder, label))


def _walk(folder: Path, label: str) -> Iterator[tuple[Path, list[Entry]]]:
    real, links, seen = [(folder, os.path.realpath(folder))], [], set()
    while real or links:
        here, place = real.pop() if real else links.pop()
        if place in seen:
            continue
        seen.add(place)
        with looked_at(here, label):
            entries = list(scan_folder(here))
        yield here, entries
        for entry in entries:
            if entry.kind != FOLDER or entry.path.name.startswith("."):
                continue
            if entry.is_link:
                links.append((entry.path, os.path.realpath(entry.path)))
            else:
                real.append((entry.path, os.path.join(place, entry.path.name)))
        links.sort(reverse=True)


@contextmanager
def looked_at(folder: Path, label: str) -> Iterator[None]:
    """InputError naming `label` where a folder cannot be read within the block."""
    try:
        yield
    except OSError as error:
        place = error.filename if isinstance(error.filename, str) else folder
        raise InputError(f"{label} names {str(folder)!r}: {place} cannot be read: {error.strerror}") from error


def _kind_of(entry: os.DirEntry) -> str:
    try:
        if entry.is_file():
            return FILE
        if entry.is_dir():
            return FOLDER
        return kind_of_mode(entry.stat().st_mode)
    except OSError:  # not there, a circle of links, or a path through a file
        return DEAD_LINK if entry.is_symlink() else ODD
