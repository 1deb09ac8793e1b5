"""Tables of images and captions: CSV, TSV, JSONL, Parquet."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from data_tools.rows import Row, faulty, locate
from mmtrain.data.index import DataError

MAX_FIELD_CHARACTERS = 1 << 24
PARQUET_SUFFIX = ".parquet"
PARQUET_BATCH_ROWS = 4096


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns."""

    image: str = "image"
    caption: str = "caption"
    keep: tuple[str, ...] = ()  # go on into the sample's .json


def table_rows(place: Path, columns: Columns, root: str) -> Iterator[Row]:
    """The rows of a table; image names are paths seen from `root`, or addresses. DataError where it is no table."""
    try:
        if place.suffix.lower() == PARQUET_SUFFIX:
            yield from _parquet_rows(place, columns, root)
            return
        with open(place, encoding="utf-8-sig", newline="") as lines:
            yield from READERS[place.suffix.lower()](lines, place, columns, root)
    except OSError as error:
        raise DataError(f"INPUT is {str(place)!r}, which cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 text (byte {error.start}: {error.reason}); convert it first") from error


def _csv_rows(lines: TextIO, place: Path, columns: Columns, root: str) -> Iterator[Row]:
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    table = csv.DictReader(lines, delimiter="\t" if place.suffix.lower() == ".tsv" else ",")
    try:
        _check_columns(place, columns, list(table.fieldnames or ()))
        for record in table:
            yield _row(record, f"line {table.line_num}", columns, root)
    except csv.Error as error:
        raise DataError(f"{place}, line {table.line_num}, is not a table: {error}") from error


def _jsonl_rows(lines: TextIO, place: Path, columns: Columns, root: str) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            yield faulty(f"line {number}", "not a line of JSON")
            continue
        if isinstance(record, dict):
            yield _row(record, f"line {number}", columns, root)
        else:
            yield faulty(f"line {number}", "not a JSON object")


READERS: dict[str, Callable[[TextIO, Path, Columns, str], Iterator[Row]]] = {
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".jsonl": _jsonl_rows,
}
TABLE_SUFFIXES = (*READERS, PARQUET_SUFFIX)


def _parquet_rows(place: Path, columns: Columns, root: str) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(place) as table:
            _check_columns(place, columns, table.schema_arrow.names)
            wanted, number = list(dict.fromkeys((columns.image, columns.caption, *columns.keep))), 0
            for batch in table.iter_batches(PARQUET_BATCH_ROWS, columns=wanted):
                for record in batch.to_pylist():
                    yield _row(record, f"row {number}", columns, root)
                    number += 1
    except ArrowException as error:
        raise DataError(f"{place} is not a Parquet table: {error}") from error


def _check_columns(place: Path, columns: Columns, found: list[str]) -> None:
    wanted = [("--image-column", columns.image), ("--caption-column", columns.caption)]
    for knob, name in wanted + [("--keep-columns", name) for name in columns.keep]:
        if name not in found:
            there = ", ".join(found) or "none"
            raise DataError(f"{place} has no column {name!r}; its columns are: {there}; name one with {knob}")


def _row(record: dict[str, Any], line: str, columns: Columns, root: str) -> Row:
    name, captions = record.get(columns.image), record.get(columns.caption)
    captions = [captions] if isinstance(captions, str | None) else captions
    if not isinstance(name, str | None) or not isinstance(captions, list):
        return faulty(line, "image or caption is not text")
    texts = tuple(text for text in captions if text is not None)
    if not all(isinstance(text, str) for text in texts):
        return faulty(line, "image or caption is not text")
    if not name or not name.strip():
        return faulty(line, "missing image")
    try:
        image = locate(name, root)
    except ValueError as error:  # an address that is none
        return faulty(line, "image or caption is not text", str(error))
    facts = {column: _plain(record[column]) for column in columns.keep if record.get(column) is not None}
    return Row(0, name, image, texts, facts or None)


def _plain(value: Any) -> Any:
    """What JSON can say as it is, anything else (dates, bytes) as text."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value
