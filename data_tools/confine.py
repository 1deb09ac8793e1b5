"""What a table may name: files below its image root, and addresses of allowed schemes (path confinement, CWE-22).

Tables are often crawled: a path out of the root would put any readable image of this machine into shards, and another
scheme would be read with the user's credentials.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from data_tools.rows import Row, Url
from mmtrain.io.urls import HTTP_SCHEMES, scheme_of

OUTSIDE_ROOT, OTHER_SCHEME = "outside --image-root", "scheme not allowed"


@dataclass(frozen=True)
class TableRules:
    """What the names in a table may lead to."""

    schemes: tuple[str, ...] = HTTP_SCHEMES  # of addresses; that of an image root which is an address is allowed too
    outside_root: bool = False  # paths that leave the image root


def confine(rows: Iterable[Row], root: str, rules: TableRules) -> Iterator[Row]:
    """The rows of a table with faults for images that it may not name; `root` is a folder or an address."""
    folder = "" if scheme_of(root) else os.path.abspath(root)
    allowed = {*(scheme.lower() for scheme in rules.schemes), scheme_of(root)}
    for row in rows:
        image = row.image
        if isinstance(image, Path) and not rules.outside_root and not _is_below(image, folder):
            where = f"{image} is not below {root}"
            detail = f"{where}; name another --image-root, or give --allow-outside-root"
            row = replace(row, image=None, fault=OUTSIDE_ROOT, detail=detail)
        elif isinstance(image, Url):
            row = _with_address(row, image, root, allowed)
        yield row


def _with_address(row: Row, image: Url, root: str, allowed: set[str]) -> Row:
    scheme = scheme_of(image.address)
    if scheme not in allowed:
        detail = f"{scheme}:// is not one of {', '.join(sorted(filter(None, allowed)))}; give --allow-schemes {scheme}"
        return replace(row, image=None, fault=OTHER_SCHEME, detail=detail)
    # The user has named this host as the place of the images.
    is_own = bool(scheme_of(root)) and urlsplit(root)[:2] == urlsplit(image.address)[:2]
    return replace(row, image=replace(image, is_own=is_own)) if is_own else row


def _is_below(path: Path, folder: str) -> bool:
    """Whether a path stays in a folder; ".." behind a link is followed as the system does."""
    if not folder:
        return False
    if ".." in path.parts:
        return _is_prefix(os.path.realpath(folder), os.path.realpath(path))
    return _is_prefix(folder, os.path.abspath(path)) or _is_prefix(os.path.realpath(folder), os.path.abspath(path))


def _is_prefix(folder: str, path: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")
