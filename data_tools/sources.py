"""Where pairs come from: a table of image paths and captions, or a folder of images with texts beside them."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mmtrain.data.index import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# Named so that they are reported as left out and not passed over in silence.
OTHER_IMAGE_SUFFIXES = (".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jp2")
CAPTION_SUFFIX = ".txt"
MAX_FIELD_CHARACTERS = 1 << 24


@dataclass(frozen=True)
class Row:
    """One pair as the input names it, nothing opened yet."""

    number: int  # from 0, in the order of the input; what is left out keeps its number
    source: str  # the image as the input names it
    image: Path | None
    caption: str | Path | None  # the text, or the file that holds it
    fault: str = ""  # why the input's line itself cannot be used

    @property
    def key(self) -> str:
        """The sample's key, in no way dependent on what happens to the others."""
        return f"{self.number:08d}"


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns."""

    image: str = "image"
    caption: str = "caption"


def read_rows(place: Path, columns: Columns) -> list[Row]:
    """The pairs of a CSV, TSV or JSONL file or of a folder, in the order of the input (a folder: sorted by path).

    DataError where the input as a whole cannot be read.
    """
    if place.is_dir():
        return _number(_folder_rows(place))
    readers: dict[str, Callable[[TextIO, Path, Columns], Iterator[Row]]] = {
        ".csv": _csv_rows,
        ".tsv": _csv_rows,
        ".jsonl": _jsonl_rows,
    }
    if place.suffix.lower() not in readers:
        known = ", ".join(readers)
        raise DataError(f"INPUT is {str(place)!r}; wanted a folder of images or a file that ends in {known}")
    try:
        with open(place, encoding="utf-8-sig", newline="") as lines:
            return _number(readers[place.suffix.lower()](lines, place, columns))
    except OSError as error:
        raise DataError(f"INPUT is {str(place)!r}, which cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 text (byte {error.start}: {error.reason}); convert it first") from error


def _number(rows: Iterator[Row]) -> list[Row]:
    return [Row(number, row.source, row.image, row.caption, row.fault) for number, row in enumerate(rows)]


def _folder_rows(folder: Path) -> Iterator[Row]:
    """Images with the text of the same name, and texts whose image is missing."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES + OTHER_IMAGE_SUFFIXES]
    texts = {path.with_suffix(""): path for path in files if path.suffix.lower() == CAPTION_SUFFIX}
    alone = [path for stem, path in texts.items() if stem not in {image.with_suffix("") for image in images}]
    for path in sorted(images + alone):
        source = str(path.relative_to(folder))
        if path.suffix.lower() == CAPTION_SUFFIX:
            yield Row(0, source, None, path)
        else:
            yield Row(0, source, path, texts.get(path.with_suffix("")))


def _csv_rows(lines: TextIO, place: Path, columns: Columns) -> Iterator[Row]:
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    table = csv.DictReader(lines, delimiter="\t" if place.suffix.lower() == ".tsv" else ",")
    try:
        _check_columns(place, columns, list(table.fieldnames or ()))
        for record in table:
            yield _table_row(record, place, table.line_num, columns)
    except csv.Error as error:
        raise DataError(f"{place}, line {table.line_num}, is not a table: {error}") from error


def _check_columns(place: Path, columns: Columns, found: list[str]) -> None:
    for knob, name in (("--image-column", columns.image), ("--caption-column", columns.caption)):
        if name not in found:
            there = ", ".join(found) or "none"
            raise DataError(f"{place} has no column {name!r}; its columns are: {there}; name one with {knob}")


def _jsonl_rows(lines: TextIO, place: Path, columns: Columns) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            yield Row(0, f"line {number}", None, None, fault="not a line of JSON")
            continue
        if isinstance(record, dict):
            yield _table_row(record, place, number, columns)
        else:
            yield Row(0, f"line {number}", None, None, fault="not a JSON object")


def _table_row(record: dict[str, object], place: Path, line: int, columns: Columns) -> Row:
    """Relative paths are meant from where the table lies."""
    path, caption = record.get(columns.image), record.get(columns.caption)
    if not isinstance(path, str | None) or not isinstance(caption, str | None):
        return Row(0, f"line {line}", None, None, fault="image or caption is not text")
    if not path or not path.strip():
        return Row(0, f"line {line}", None, caption)
    return Row(0, path, place.parent / path.strip(), caption)
