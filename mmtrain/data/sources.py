"""Shards by name: the tar files that names of users mean, by `mmtrain.io.paths.resolve`. No torch.

A folder means the tars that lie in it itself, not those of its sub-folders (train/ and heldout/ often lie side by
side). A pattern means the tars that it matches, else those of the folders that it matches.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmtrain.data.faults import DataError
from mmtrain.io.errors import InputError
from mmtrain.io.folders import FOLDER, Entry, Listing, list_folder, may_hold
from mmtrain.io.paths import identity, resolve, shown
from mmtrain.io.text import redact
from mmtrain.io.urls import FILE_SCHEME, has_suffix, is_remote, path_of_file_url, scheme_of

LOG = logging.getLogger("mmtrain.data")
TAR_SUFFIX = ".tar"
MAX_SUBFOLDERS = 50  # that are looked into for a hint


@dataclass(frozen=True)
class ShardFiles:
    """What names mean."""

    shards: tuple[Path, ...]  # sorted
    folders: tuple[Path, ...]  # that were named as a whole: what their manifests list is to be there


def find_shards(places: Sequence[str], knob: str = "data.train") -> list[Path]:
    """The tar files at `places` (folders, tar files, glob or {000..009} patterns), sorted; DataError naming `knob`."""
    return list(list_shards(places, knob).shards)


def list_shards(places: Sequence[str], knob: str) -> ShardFiles:
    """The tar files at `places`, and which of these are folders; DataError naming `knob`.

    A tar that two names mean, through links too, is an error: each of its samples would be read twice.
    """
    if not places:
        raise DataError(f"{knob} names no place; give it a folder of shards, a tar file or a pattern")
    with data_errors():
        entries, folders = [], []
        for place in map(str, places):
            _add(place, knob, entries, folders)
        _refuse_doubled(entries, knob)
    return ShardFiles(tuple(sorted(entry.path for entry in entries)), tuple(folders))


@contextmanager
def data_errors() -> Iterator[None]:
    """What is wrong with names within the block is a DataError."""
    try:
        yield
    except DataError:
        raise
    except InputError as error:
        raise DataError(str(error)) from error


def local_name(place: str, label: str) -> str:
    """The local name that a place is, file:// addresses too; InputError where it is an address or a command."""
    if is_remote(place):
        raise InputError(
            f"{label} is {redact(place)!r}, an address; this command reads local files only: copy them here, or pack "
            "them with `mmdata build`, which takes addresses"
        )
    return path_of_file_url(place) if scheme_of(place) == FILE_SCHEME else place


def _add(place: str, knob: str, entries: list[Entry], folders: list[Path]) -> None:
    """Append the shards that one place means, and the folders among what it names."""
    found = resolve(local_name(place, knob), knob)
    tars = [entry.checked(knob) for entry in found if _is_shard(entry)]
    # Folders that a pattern matches beside tars, as * does, are no part of the set.
    entered = [entry.path for entry in found if entry.kind == FOLDER and not (entry.is_match and tars)]
    listings = [(folder, list_folder(folder, (TAR_SUFFIX,), knob)) for folder in entered]
    held = [entry for _, listing in listings for entry in listing.files]
    if not tars and not held:
        raise InputError(f"{knob} is {shown(place)}, where no .tar file lies{_hint(listings, found)}")
    entries += tars + held
    folders += entered
    for folder, listing in listings:
        if named := [str(sub) for sub in listing.folders[:MAX_SUBFOLDERS] if may_hold(sub, (TAR_SUFFIX,))]:
            LOG.warning("%r: the shards in its sub-folders are not read: %s", str(folder), _few(named))


def _is_shard(entry: Entry) -> bool:
    """Whether it is taken as a tar: any file that was named, and what a pattern matches by its suffix."""
    return entry.kind != FOLDER and (not entry.is_match or has_suffix(entry.path, (TAR_SUFFIX,)))


def _hint(listings: Sequence[tuple[Path, Listing]], found: Sequence[Entry]) -> str:
    """What lies there in place of tars."""
    subs = [sub for _, listing in listings for sub in listing.folders[:MAX_SUBFOLDERS]]
    if holding := [str(sub) for sub in subs if may_hold(sub, (TAR_SUFFIX,))]:
        return f"; its sub-folders hold some: name {_few(holding)}"
    if hidden := [name for _, listing in listings for name in listing.hidden]:
        return f"; hidden names do not count ({len(hidden)}, {shown(hidden[0])} first)"
    if matched := [str(entry.path) for entry in found if entry.is_match]:
        return f"; it matches {_few(matched)}"
    return "; give it a folder or a pattern of shards"


def _refuse_doubled(entries: Sequence[Entry], knob: str) -> None:
    real_folders: dict[str, str] = {}
    first: dict[str, Path] = {}
    for entry in entries:
        other = first.setdefault(identity(entry, real_folders), entry.path)
        if other is entry.path:
            continue
        twice = (
            f"{str(other)!r} 2 times"
            if other == entry.path
            else f"one file twice, {str(other)!r} and {str(entry.path)!r}"
        )
        raise InputError(f"{knob} names {twice}; each of its samples would be read as often")


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
