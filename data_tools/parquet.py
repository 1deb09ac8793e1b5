"""Parquet tables, also as Hugging Face datasets writes them: images as names, as bytes or as {bytes, path}.

Bytes stay in the table until their image is prepared. A value that is not UTF-8 leaves out its row, not the table.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.parquet import ParquetFile

from data_tools.left_out import Unusable
from data_tools.rows import Cell, Columns, Row, as_captions, faulty, named_row
from mmtrain.data.index import DataError
from mmtrain.io.file_kinds import A_PARQUET, describe_file

BATCH_ROWS = 4096
IMAGE_BATCH_ROWS = 64  # where it takes a look at the bytes to know whether there are any
MAX_OPEN_ROW_GROUPS = 2  # of images, in memory
IMAGE_TYPES = "text, binary, or a struct with bytes or path as Hugging Face datasets writes it"
BYTES, PATH = "bytes", "path"


def parquet_rows(
    place: Path, columns: Columns, root: str, check_columns: Callable[[Path, Columns, list[str]], None]
) -> Iterator[Row]:
    """The rows of a Parquet table; DataError where it is none or its columns are of other types than wanted."""
    try:
        with ParquetFile(place) as table:
            schema = table.schema_arrow
            check_columns(place, columns, schema.names)
            _check_types(place, columns, schema)
            first = 0
            for group in range(table.num_row_groups):
                for number, row in enumerate(_group_rows(table, place, group, columns, root)):
                    line = f"row {first + number}"
                    yield row if row.source else replace(row, source=line if row.fault else f"{place.name}: {line}")
                first += table.metadata.row_group(group).num_rows
    except pa.ArrowException as error:
        raise _no_table(place, error) from error


def parquet_columns(place: Path) -> list[str]:
    """The columns of a Parquet table; DataError where it is none."""
    try:
        with ParquetFile(place) as table:
            return table.schema_arrow.names
    except pa.ArrowException as error:
        raise _no_table(place, error) from error


def _no_table(place: Path, error: pa.ArrowException) -> DataError:
    kind = describe_file(place)
    return DataError(
        f"{place} is not a Parquet table: " + (f"it is {kind}" if kind not in (None, A_PARQUET) else f"{error}")
    )


def read_cell(cell: Cell, most_bytes: int) -> bytes:
    """The bytes in a cell; Unusable where there are none, or too many."""
    try:
        content = _images_of(cell.table, cell.row_group, cell.column)[cell.row].as_py()
    except (OSError, pa.ArrowException) as error:
        raise Unusable("file cannot be read", str(error)) from error
    content = content.get(cell.field) if cell.field and isinstance(content, dict) else content
    if not isinstance(content, bytes):
        raise Unusable("missing image", "the cell is empty")
    if len(content) > most_bytes:
        raise Unusable("file too large", f"{len(content)} bytes, at most {most_bytes}")
    return content


@lru_cache(maxsize=MAX_OPEN_ROW_GROUPS)
def _images_of(table: Path, row_group: int, column: str) -> pa.ChunkedArray:
    with ParquetFile(table) as file:
        return file.read_row_group(row_group, columns=[column]).column(0)


def _group_rows(table: ParquetFile, place: Path, group: int, columns: Columns, root: str) -> Iterator[Row]:
    """The rows of one row group; a source that is empty is still to be called after its row."""
    image = table.schema_arrow.field(columns.image).type
    holds_bytes = _is_binary(image) or (pa.types.is_struct(image) and image.get_field_index(BYTES) >= 0)
    known = holds_bytes and _has_all_bytes(table, group, columns.image)
    # Where every row has its bytes they are not read yet.
    looked_at = [f"{columns.image}.{PATH}" if pa.types.is_struct(image) else ""] if known else [columns.image]
    wanted = list(dict.fromkeys(filter(None, (*looked_at, columns.caption, *columns.keep))))
    rows = IMAGE_BATCH_ROWS if holds_bytes and not known else BATCH_ROWS
    number = 0
    for batch in table.iter_batches(rows, row_groups=[group], columns=wanted):
        for record in _records(batch):
            cell = Cell(place, group, number, columns.image, BYTES if pa.types.is_struct(image) else "")
            yield _row(record, cell, columns, root, has_bytes=known)
            number += 1


def _has_all_bytes(table: ParquetFile, group: int, image: str) -> bool:
    """Whether the statistics say that no row is without bytes."""
    metadata = table.metadata.row_group(group)
    for number in range(metadata.num_columns):
        column = metadata.column(number)
        if column.path_in_schema in (image, f"{image}.{BYTES}"):
            statistics = column.statistics
            return bool(statistics and statistics.has_null_count and statistics.null_count == 0)
    return False


def _records(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The records of a batch; a value that is not UTF-8 is the UnicodeDecodeError."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            yield {name: _value(batch.column(name), number) for name in batch.schema.names}


def _value(column: pa.Array, number: int) -> Any:
    try:
        return column[number].as_py()
    except UnicodeDecodeError as error:
        return error


def _row(record: dict[str, Any], cell: Cell, columns: Columns, root: str, *, has_bytes: bool) -> Row:
    for name, value in record.items():
        if isinstance(value, UnicodeDecodeError):
            return faulty("", "not UTF-8 text", f"byte {value.start} of {name!r} is 0x{value.object[value.start]:02x}")
    facts = {column: _plain(record[column]) for column in columns.keep if record[column] is not None}
    image, captions = record.get(columns.image), as_captions(record[columns.caption])
    content = image.get(BYTES) if isinstance(image, dict) else image
    name = image.get(PATH) if isinstance(image, dict) else None
    if has_bytes or isinstance(content, bytes):
        return Row(0, name if isinstance(name, str) else "", cell, captions, facts or None)
    return named_row("", name if isinstance(image, dict) else image, root, captions, facts)


def _check_types(place: Path, columns: Columns, schema: pa.Schema) -> None:
    image, caption = schema.field(columns.image).type, schema.field(columns.caption).type
    fields = {image.field(number).name for number in range(image.num_fields)} if pa.types.is_struct(image) else set()
    if not (_is_text(image) or _is_binary(image) or fields & {BYTES, PATH}):
        raise DataError(f"{place}: column {columns.image!r} is {image}; wanted {IMAGE_TYPES}")
    if not (_is_text(caption) or (_is_list(caption) and _is_text(caption.value_type))):
        raise DataError(f"{place}: column {columns.caption!r} is {caption}; wanted text or lists of text")
    for name in columns.keep:
        if _has_binary(kept := schema.field(name).type):
            raise DataError(f"{place}: column {name!r} is {kept}; --keep-columns takes what JSON can hold, no bytes")


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind) or kind == _VIEW


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _has_binary(kind: pa.DataType) -> bool:
    return _is_binary(kind) or any(_has_binary(kind.field(number).type) for number in range(kind.num_fields))


def _plain(value: Any) -> Any:
    """A value as JSON holds it; dates, times and decimal numbers as text."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


_VIEW = pa.string_view() if hasattr(pa, "string_view") else None
