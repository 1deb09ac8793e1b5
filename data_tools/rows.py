"""Samples as a source names them: nothing of them is opened yet."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmtrain.io.errors import InputError
from mmtrain.io.paths import expand_user, lexists
from mmtrain.io.urls import FILE_SCHEME, join_url, normalize_url, path_of_file_url, scheme_of

# No file or address has it in its name: NUL, and surrogates that do not stand for a byte (PEP 383).
UNFIT_FOR_NAMES = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
TYPE_NAMES = {
    type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text", bytes: "bytes",
    list: "a list", dict: "an object",
}  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns."""

    image: str = "image"
    caption: str = "caption"
    keep: tuple[str, ...] = ()  # go on into the sample's .json
    quotes: bool = True  # of .csv and .tsv: a field that begins with a quote is a quoted one


@dataclass(frozen=True, slots=True)
class Url:
    """Bytes behind an address: http, https, or an object store that fsspec knows."""

    address: str
    is_own: bool = field(default=False, compare=False)  # of a host that the user has named, not only the table


@dataclass(frozen=True, slots=True)
class Inside:
    """Bytes inside a tar."""

    tar: Path
    offset: int  # bytes from the start of the tar
    size: int  # bytes
    field: str = ""  # of the JSON object there, where only that is meant


@dataclass(frozen=True, slots=True)
class Cell:
    """Bytes in a cell of a Parquet table."""

    table: Path
    row_group: int
    row: int  # in the row group
    column: str
    field: str = ""  # of the struct there


@dataclass(frozen=True, slots=True)
class Loss:
    """A caption or value that is left out while its row stays."""

    reason: str  # one of a few, to be counted
    detail: str = ""


Place = Path | Url | Inside | Cell
NOT_TEXT, UNUSABLE_QUESTION = "caption is not text", "question or answer is not text"


@dataclass(frozen=True, slots=True)
class Row:
    """One image with its captions."""

    number: int  # from 0, in the order of the input; what is left out keeps its number
    source: str  # the image as the input names it
    image: Place | None
    captions: tuple[str | Place | Loss, ...]  # texts, or where they lie, or why there is none
    facts: dict[str, Any] | Place | None = None  # what else goes into the sample's .json
    fault: str = ""  # why the input's line itself cannot be used
    detail: str = ""  # of the fault
    losses: tuple[Loss, ...] = ()  # what else of the row is left out

    @property
    def key(self) -> str:
        """The sample's key, in no way dependent on what happens to the others."""
        return f"{self.number:08d}"


Captions = tuple[str | Place | Loss, ...]


def faulty(source: str, fault: str, detail: str = "", captions: Captions = ()) -> Row:
    """A line of the input that is no sample, to be named among what is left out; `captions` go with it."""
    return Row(0, source, None, captions, fault=fault, detail=detail)


def named_row(line: str, name: object, root: str, captions: Captions, facts: dict[str, Any] | None = None) -> Row:
    """The row of an image that a table calls `name`; a row with a fault, named by its `line`, where it is no name.

    Names of files that are not UTF-8 are written as Python writes them: one \\udcNN for each byte.
    """
    if name is None or (isinstance(name, str) and not name.strip()):
        return faulty(line, "missing image", captions=captions)
    if not isinstance(name, str):
        return faulty(line, "image is not text", f"the name is {type_name(name)}", captions)
    if found := UNFIT_FOR_NAMES.search(name):
        return faulty(line, "image is not text", f"the name holds {ascii(found[0])}", captions)
    try:
        place = locate(name, root)
    except ValueError as error:
        return faulty(line, "malformed address", str(error) if name in str(error) else f"{name}: {error}", captions)
    if isinstance(place, Url) and not _is_known_scheme(place.address.partition(":")[0].lower()):
        return faulty(line, "malformed address", f"{name}: its scheme is unknown", captions)
    return Row(0, name, place, captions, facts or None)


def as_captions(value: object, where: str = "") -> Captions:
    """The captions that a cell or entry holds: a text, a list of texts or nothing; a Loss for each that is no text.

    `where` names the entry in the Loss.
    """
    if value is None:
        return ()
    several = value if isinstance(value, list) else [value]
    return tuple(
        one if isinstance(one, str) else Loss(NOT_TEXT, f"{where}: {type_name(one)}".removeprefix(": "))
        for one in several
    )


def type_name(value: object) -> str:
    """What a value of a table or JSON file is, in words."""
    return TYPE_NAMES.get(type(value), type(value).__name__)


def locate(name: str, root: str) -> Path | Url:
    """Where `name` of a table lies: an address as it stands, a path seen from `root` (a folder or an address).

    Spaces around a name do not count, unless a file is called so; "~" is the home folder, unless a file is called so.
    ValueError where it is a malformed address.
    """
    bare = name.strip()
    try:
        if scheme_of(bare):
            return _of_address(bare)
        if scheme_of(root):
            return _of_address(join_url(root, bare))
    except InputError as error:
        raise ValueError(str(error)) from error
    if bare != name and lexists(Path(root) / name):
        return Path(root) / name
    if bare.startswith("~") and not lexists(Path(root) / bare):
        bare = expand_user(bare)
    return Path(root, bare)


def is_remote(place: object) -> bool:
    """Whether reading it means waiting for another machine."""
    return isinstance(place, Url)


@lru_cache(maxsize=64)
def _is_known_scheme(scheme: str) -> bool:
    if scheme in ("http", "https"):
        return True
    from fsspec.registry import known_implementations, registry

    return scheme in registry or scheme in known_implementations


def _of_address(address: str) -> Path | Url:
    return Path(path_of_file_url(address)) if scheme_of(address) == FILE_SCHEME else Url(normalize_url(address))
