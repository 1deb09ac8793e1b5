"""Inputs of `mmdata build` by name: which tars, tables and folders of images the names of users mean.

Names are resolved by `mmtrain.io.paths`; addresses are fetched first. A folder is of one kind: shards where tars lie in
it, else images (in all its sub-folders), else the parts of a table. What cannot be told for sure is refused, and what
lies there without being read is said.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from data_tools.fetch import FetchRules, fetch_file
from data_tools.image_folder import is_image, is_metadata, is_text
from data_tools.rows import Url
from data_tools.splits import TOKEN_SUFFIX
from data_tools.tables import TABLE_SUFFIXES
from mmtrain.data.index import DataError
from mmtrain.data.manifest import FILE_NAME
from mmtrain.data.sources import TAR_SUFFIX, data_errors, find_shards, local_name
from mmtrain.io.folders import FOLDER, Entry, list_folder, may_hold, walk_files
from mmtrain.io.paths import expand_url, identity, resolve, shown
from mmtrain.io.text import redact
from mmtrain.io.urls import PIPE, has_suffix, is_remote, parent_url, strip_query

LOG = logging.getLogger("mmdata")
LABEL = "INPUT"
JSON_SUFFIX = ".json"
FILE_SUFFIXES = (*TABLE_SUFFIXES, JSON_SUFFIX, TOKEN_SUFFIX)  # of one file that lists images


class Kind(Enum):
    """How an input is read."""

    TARS, IMAGES, TABLE = "tars", "a folder of images", "a table"


@dataclass(frozen=True)
class Input:
    """One thing to read."""

    kind: Kind
    paths: tuple[Path, ...]  # of tars one or more, else one
    root: str  # folder or address that names of images in it are seen from
    address: str = ""  # where it was fetched from
    entries: tuple[Entry, ...] = ()  # of a folder of images: what lies there


def resolve_inputs(places: Sequence[str], downloads: Path | None = None) -> list[Input]:
    """What `places` mean, in their order; inputs behind an address are fetched into the folder `downloads`.

    DataError where a place means nothing or more than one thing, or one file is named twice.
    """
    with data_errors():
        found = [
            one
            for place in places
            for one in (_remote_inputs(place, downloads) if is_remote(place) else _local_inputs(place))
        ]
        _refuse_doubled(found)
    return found


def _remote_inputs(place: str, downloads: Path | None) -> Iterator[Input]:
    """Those behind an address, or behind several that a {000..009} pattern names."""
    if place.startswith(PIPE):
        raise DataError(f"{LABEL} is a pipe: command, which training alone reads; write its output to a file")
    for address in expand_url(place, LABEL):
        if not has_suffix(address, (*FILE_SUFFIXES, TAR_SUFFIX)):
            raise DataError(
                f"{LABEL} is {redact(address)!r}, which is no address of a table or tar; folders behind addresses are "
                f"not listed: name files, as in {redact(strip_query(address)).rstrip('/')}/x-{{000..009}}.tar"
            )
        if downloads is None:
            raise DataError(f"{LABEL} {redact(place)!r} is an address, and there is no folder to fetch it into")
        copy = fetch_file(Url(address), downloads, FetchRules())
        kind = Kind.TARS if has_suffix(address, (TAR_SUFFIX,)) else Kind.TABLE
        # The base of relative names is the folder of the path; a signature in the query holds for the table itself.
        yield Input(kind, (copy,), strip_query(parent_url(address)), address)


def _local_inputs(place: str) -> Iterator[Input]:
    found = _counted(resolve(local_name(place, LABEL), LABEL), place)
    kinds = [_kind_of(entry) for entry in found]
    if all(kind is Kind.TARS for kind in kinds):  # of all together, sorted: one set of shards
        shards = find_shards([place], LABEL)
        yield Input(Kind.TARS, tuple(shards), str(shards[0].parent))
        return
    for entry, kind in zip(found, kinds, strict=True):
        if kind is Kind.TARS:
            yield Input(kind, tuple(find_shards([str(entry.path)], LABEL)), str(entry.path.parent))
        elif entry.kind == FOLDER:
            yield from _folder_inputs(entry.path)
        else:
            yield Input(Kind.TABLE, (entry.path,), str(entry.path.parent))


def _counted(found: Sequence[Entry], place: str) -> list[Entry]:
    """What was named, and of what a pattern matches the tars, else the tables, else the folders."""
    named, matches = [entry for entry in found if not entry.is_match], [entry for entry in found if entry.is_match]
    files = [entry for entry in matches if entry.kind != FOLDER]
    tars = [entry for entry in files if has_suffix(entry.path, (TAR_SUFFIX,))]
    tables = [entry for entry in files if has_suffix(entry.path, FILE_SUFFIXES)]
    folders = [entry for entry in matches if entry.kind == FOLDER]
    if tables and not tars:
        _refuse_several_kinds([entry.path for entry in tables], place)
    used = tars or tables or folders
    if not named and not used:
        images = ": for images name their folder" if any(is_image(entry.path.name) for entry in files) else ""
        raise DataError(f"{LABEL} is {shown(place)}, which matches neither tars nor tables{images}")
    return named + [entry.checked(LABEL) for entry in used]


def _kind_of(entry: Entry) -> Kind:
    if entry.kind == FOLDER:
        return _kind_of_folder(entry.path)
    if has_suffix(entry.path, (TAR_SUFFIX,)):
        return Kind.TARS
    if has_suffix(entry.path, FILE_SUFFIXES):
        return Kind.TABLE
    known = ", ".join([*TABLE_SUFFIXES, f"{JSON_SUFFIX} (COCO captions, Karpathy's splits)", TOKEN_SUFFIX, TAR_SUFFIX])
    raise DataError(
        f"{LABEL} is {shown(entry.path)}; wanted a folder of images or of shards, or a file that ends in {known}"
    )


def _kind_of_folder(folder: Path) -> Kind:
    """TARS where tars lie in it; then images may not, unless they lie beside a manifest, which says what is the set."""
    tars = list_folder(folder, (TAR_SUFFIX,), LABEL).files
    if not tars:
        return Kind.IMAGES
    if not (folder / FILE_NAME).exists():
        images = [entry for entry in walk_files(folder, is_image, LABEL)[0] if is_image(entry.path.name)]
        if images:
            first = shown(images[0].path.relative_to(folder))
            raise DataError(
                f"{LABEL} is {shown(folder)}, which holds {len(images)} images ({first} first) and "
                f"{len(tars)} tars ({shown(tars[0].path.name)} first); move one kind elsewhere, or name the tars: "
                f"{shown(folder / '*.tar')}"
            )
    return Kind.TARS


def _folder_inputs(folder: Path) -> Iterator[Input]:
    """The images of a folder without tars, or the parts of its table."""
    entries, num_hidden = walk_files(folder, _is_wanted, LABEL)
    tables = [entry for entry in entries if has_suffix(entry.path, TABLE_SUFFIXES)]
    images = [entry for entry in entries if not has_suffix(entry.path, TABLE_SUFFIXES)]
    others = [entry.path for entry in tables if not is_metadata(entry.path.name)]
    if any(is_image(entry.path.name) for entry in images):
        metadata = [entry for entry in tables if is_metadata(entry.path.name)]
        if others and not metadata and not any(is_text(entry.path.name) for entry in images):
            raise DataError(
                f"{LABEL} is {shown(folder)}, a folder of images without texts; name the table beside them: "
                f"{_few(others)}"
            )
        _say_unread(folder, others)
        yield Input(Kind.IMAGES, (folder,), str(folder), entries=(*images, *metadata))
    elif tables:
        _refuse_several_kinds([entry.path for entry in tables], str(folder))
        for entry in tables:
            yield Input(Kind.TABLE, (entry.checked(LABEL).path,), str(entry.path.parent))
    elif images:
        yield Input(Kind.IMAGES, (folder,), str(folder), entries=tuple(images))
    else:
        listing = list_folder(folder, (JSON_SUFFIX, TOKEN_SUFFIX), LABEL)
        subs = [sub for sub in listing.folders if may_hold(sub, (TAR_SUFFIX,))]
        annotations = [entry.path for entry in listing.files]
        raise DataError(
            f"{LABEL} {shown(folder)} holds no usable pair of image and caption: no image, table or tar lies there"
            + (f" ({num_hidden} hidden names do not count)" if num_hidden else "")
            + (f"; tars lie in {_few(subs)}" if subs else "")
            + (f"; for annotations name their file: {_few(annotations)}" if annotations else "")
        )


def _is_wanted(name: str) -> bool:
    return is_image(name) or is_text(name) or name.lower().endswith(TABLE_SUFFIXES)


def _say_unread(folder: Path, tables: Sequence[Path]) -> None:
    if tables:
        LOG.warning("%r: its images are paired with the texts beside them; not read: %s", str(folder), _few(tables))
    subs = list_folder(folder, (TAR_SUFFIX,), LABEL).folders
    if tars := [sub for sub in subs if may_hold(sub, (TAR_SUFFIX,))]:
        LOG.warning("%r: the tars in its sub-folders are not read: %s", str(folder), _few(tars))


def _refuse_several_kinds(tables: Sequence[Path], place: str) -> None:
    kinds = {table.suffix.lower(): table.name for table in reversed(tables)}
    if len(kinds) > 1:
        first = ", ".join(shown(kinds[kind]) for kind in sorted(kinds))
        raise DataError(
            f"{LABEL} is {shown(place)}, where tables of several kinds lie ({first}), maybe of the same rows; "
            "name those of one kind"
        )


def _refuse_doubled(inputs: Sequence[Input]) -> None:
    folders: dict[str, str] = {}
    first: dict[str, Path] = {}
    for path in (path for one in inputs for path in one.paths):
        other = first.setdefault(identity(Entry(path, "", path.is_symlink()), folders), path)
        if other is not path:
            raise DataError(
                f"{LABEL} names one thing twice, {shown(other)} and {shown(path)}; each pair would be doubled"
            )


def _few(paths: Sequence[Path]) -> str:
    return ", ".join(map(shown, paths[:3])) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
