"""Tables of images and captions: CSV, TSV, JSONL, Parquet. Each row is a sample or is named with what is wrong."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_tools.delimited import BYTE_ORDER_MARK, NOT_UTF8, check_names, open_delimited, open_text
from data_tools.parquet import parquet_columns, parquet_rows
from data_tools.rows import Columns, Row, as_captions, faulty, named_row, type_name
from mmtrain.data.index import DataError
from mmtrain.io.json_text import MAX_JSON_BYTES, JsonError, lenient_json

PARQUET_SUFFIX = ".parquet"
# Names in KEY.json that the loader, the tasks or `mmdata build` give a meaning to.
RESERVED = ("image_id", "caption_id", "size", "captions", "questions", "scene", "twin", "source", "original_size")


@dataclass(frozen=True)
class JsonLine:
    """One line of a JSONL file, or why it is none."""

    number: int  # from 1
    value: Any
    fault: str = ""
    detail: str = ""


def table_rows(place: Path, columns: Columns, root: str) -> Iterator[Row]:
    """The rows of a table; image names are paths seen from `root`, or addresses. DataError where it is no table."""
    try:
        for row in READERS[place.suffix.lower()](place, columns, root):
            yield replace(row, source=f"{place.name}: {row.source}") if row.fault else row
    except OSError as error:
        raise DataError(f"INPUT is {str(place)!r}, which cannot be read: {error.strerror or error}") from error


def column_names(place: Path) -> list[str]:
    """The columns of a table, for JSONL the names in its first object; DataError where it is no table."""
    suffix = place.suffix.lower()
    if suffix == PARQUET_SUFFIX:
        return parquet_columns(place)
    if suffix == ".jsonl":
        return next((list(line.value) for line in json_lines(place) if isinstance(line.value, dict)), [])
    with open_delimited(place) as table:
        return table.header


def json_lines(place: Path) -> Iterator[JsonLine]:
    """The lines of a JSONL file that are not empty; only LF ends a line."""
    with open_text(place) as lines:
        for number, line in enumerate(lines, start=1):
            content = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if not content.strip():
                continue
            try:
                yield JsonLine(number, lenient_json(content.decode(), max_bytes=MAX_JSON_BYTES, unique_names=True))
            except UnicodeDecodeError as error:
                yield JsonLine(
                    number, None, NOT_UTF8, f"byte {error.start} of line {number} is 0x{line[error.start]:02x}"
                )
            except JsonError as error:
                yield JsonLine(number, None, "not a line of JSON", str(error))


def check_kept_columns(columns: Columns) -> None:
    """DataError where a column is to be kept under a name that KEY.json gives a meaning to."""
    for name in columns.keep:
        if name in RESERVED:
            raise DataError(
                f"--keep-columns names {name!r}, which has a meaning of its own in KEY.json (as {', '.join(RESERVED)} "
                "have); rename the column"
            )


def check_columns(place: Path, columns: Columns, found: list[str]) -> None:
    """DataError where a column is not there, or there twice."""
    check_names(place, found)
    wanted = [("--image-column", columns.image), ("--caption-column", columns.caption)]
    for knob, name in wanted + [("--keep-columns", name) for name in columns.keep]:
        if name not in found:
            there = ", ".join(found) or "none"
            raise DataError(f"{place} has no column {name!r}; its columns are: {there}; name one with {knob}")


def _delimited_rows(place: Path, columns: Columns, root: str) -> Iterator[Row]:
    with open_delimited(place, quotes=columns.quotes) as table:
        check_columns(place, columns, table.header)
        for record in table.records(columns.image):
            if record.fault:
                yield faulty(record.line, record.fault, record.detail)
            else:
                yield _row(record.values, record.line, columns, root)


def _jsonl_rows(place: Path, columns: Columns, root: str) -> Iterator[Row]:
    for line in json_lines(place):
        if line.fault:
            yield faulty(f"line {line.number}", line.fault, line.detail)
        elif isinstance(line.value, dict):
            yield _row(line.value, f"line {line.number}", columns, root)
        else:
            yield faulty(f"line {line.number}", "not a JSON object", type_name(line.value))


def _parquet_table_rows(place: Path, columns: Columns, root: str) -> Iterator[Row]:
    return parquet_rows(place, columns, root, check_columns)


READERS: dict[str, Callable[[Path, Columns, str], Iterator[Row]]] = {
    ".csv": _delimited_rows,
    ".tsv": _delimited_rows,
    ".jsonl": _jsonl_rows,
    PARQUET_SUFFIX: _parquet_table_rows,
}
TABLE_SUFFIXES = tuple(READERS)


def _row(record: dict[str, Any], line: str, columns: Columns, root: str) -> Row:
    facts = {column: record[column] for column in columns.keep if record.get(column) is not None}
    return named_row(line, record.get(columns.image), root, as_captions(record.get(columns.caption)), facts)
