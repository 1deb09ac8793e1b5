"""Folders of images with a text of the same name beside each (as open_clip's and img2dataset's users keep them), or
with a metadata table (as Hugging Face's ImageFolder has it)."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from data_tools.rows import Columns, Row, faulty
from data_tools.tables import column_names, table_rows
from mmtrain.io.folders import FILE, Entry

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# Named so that they are reported as left out and not passed over in silence.
OTHER_IMAGE_SUFFIXES = (".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jp2")
ANY_IMAGE_SUFFIX = IMAGE_SUFFIXES + OTHER_IMAGE_SUFFIXES
CAPTION_SUFFIX = ".txt"
# As Hugging Face's ImageFolder names them.
METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
METADATA_IMAGE, METADATA_CAPTION = "file_name", "text"  # where --image-column and --caption-column are not there
LOG = logging.getLogger("mmdata")


def is_image(name: str) -> bool:
    """Whether a file is taken as an image, by its suffix in letters of any case."""
    return name.lower().endswith(ANY_IMAGE_SUFFIX)


def is_text(name: str) -> bool:
    """Whether a file is taken as a caption."""
    return name.lower().endswith(CAPTION_SUFFIX)


def is_metadata(name: str) -> bool:
    """Whether a file is the table beside images that Hugging Face's ImageFolder reads."""
    return name.lower() in METADATA_NAMES


def image_rows(folder: Path, entries: Sequence[Entry], columns: Columns) -> Iterator[Row]:
    """Rows of the metadata tables in their order, then the other images with the text of the same name; also texts
    whose image is missing, and links that lead nowhere.

    `entries`: what `walk_files` has found below `folder`, sorted by path. What cannot be opened is named, never opened.
    An image that a metadata table names has its captions, and that of its text if there is one.
    """
    stems = [entry.path.with_suffix("") for entry in entries]
    texts = {stem: entry for stem, entry in zip(stems, entries, strict=True) if is_text(entry.path.name)}
    pictured = {stem for stem, entry in zip(stems, entries, strict=True) if is_image(entry.path.name)}
    named = set[Path]()
    for row in _metadata_rows(entries, columns, has_texts=bool(texts)):
        if isinstance(row.image, Path):
            path = Path(os.path.normpath(row.image))
            text = texts.get(path.with_suffix("")) if path not in named else None
            named.add(path)
            yield replace(row, captions=(*row.captions, text.path)) if text and text.kind == FILE else row
        else:
            yield row
    prefix = len(str(folder / "x")) - 1
    for stem, entry in zip(stems, entries, strict=True):
        source = str(entry.path)[prefix:]
        if is_metadata(entry.path.name) or (named and Path(os.path.normpath(entry.path)) in named):
            continue
        if is_text(entry.path.name):
            if stem not in pictured:
                yield faulty(source, "missing image")
        elif entry.kind != FILE:
            yield faulty(source, "missing file", f"{source} is {entry.described()}")
        elif (text := texts.get(stem)) and text.kind != FILE:
            yield faulty(source, "caption cannot be read", f"{text.path.name} is {text.described()}")
        else:
            yield Row(0, source, entry.path, (text.path,) if text else ())


def _metadata_rows(entries: Sequence[Entry], columns: Columns, *, has_texts: bool) -> Iterator[Row]:
    """The rows of the metadata tables; names of images are seen from where the table lies."""
    for entry in entries:
        if not is_metadata(entry.path.name):
            continue
        place = entry.checked("INPUT").path
        found = column_names(place)
        image = columns.image if columns.image in found else METADATA_IMAGE
        caption = columns.caption if columns.caption in found else METADATA_CAPTION
        if has_texts and not {image, caption} <= set(found):
            LOG.warning(
                "%s is not read: it has no columns %s and %s, and texts lie beside images", place, image, caption
            )
            continue
        if caption not in found:
            caption = columns.caption  # the one that a refusal names
        yield from table_rows(place, replace(columns, image=image, caption=caption), str(place.parent))
