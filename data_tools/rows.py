"""Samples as a source names them: nothing of them is opened yet."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Url:
    """Bytes behind an address: http, https, or an object store that fsspec knows."""

    address: str


@dataclass(frozen=True, slots=True)
class Inside:
    """Bytes inside a tar."""

    tar: Path
    offset: int  # bytes from the start of the tar
    size: int  # bytes
    field: str = ""  # of the JSON object there, where only that is meant


Place = Path | Url | Inside


@dataclass(frozen=True, slots=True)
class Row:
    """One image with its captions."""

    number: int  # from 0, in the order of the input; what is left out keeps its number
    source: str  # the image as the input names it
    image: Place | None
    captions: tuple[str | Place, ...]  # texts, or where they lie
    facts: dict[str, Any] | Place | None = None  # what else goes into the sample's .json
    fault: str = ""  # why the input's line itself cannot be used
    detail: str = ""  # of the fault

    @property
    def key(self) -> str:
        """The sample's key, in no way dependent on what happens to the others."""
        return f"{self.number:08d}"


def faulty(source: str, fault: str, detail: str = "") -> Row:
    """A line of the input that is no sample, to be named among what is left out."""
    return Row(0, source, None, (), fault=fault, detail=detail)


def locate(name: str, root: str) -> Path | Url:
    """Where `name` of a table lies: an address as it stands, a path seen from `root` (a folder or an address)."""
    name = name.strip()
    if SCHEME.match(name):
        return _of_address(name)
    if SCHEME.match(root):
        return _of_address(f"{root.rstrip('/')}/{name.lstrip('/')}")
    return Path(root) / name


def is_remote(place: object) -> bool:
    """Whether reading it means waiting for another machine."""
    return isinstance(place, Url)


def _of_address(address: str) -> Path | Url:
    split = urlsplit(address)
    return Path(unquote(split.path)) if split.scheme.lower() == "file" else Url(address)
