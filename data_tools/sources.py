"""Where samples come from: tables, folders with texts beside the images, COCO annotations, tars of other tools."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_tools.coco import coco_rows, json_content
from data_tools.confine import TableRules, confine
from data_tools.image_folder import image_rows
from data_tools.inputs import JSON_SUFFIX, Input, Kind, resolve_inputs
from data_tools.rows import Loss, Row
from data_tools.splits import TOKEN_SUFFIX, flickr_rows, is_flickr_table, is_karpathy, karpathy_rows, token_rows
from data_tools.tables import Columns, check_kept_columns, table_rows
from data_tools.tars import tar_rows
from mmtrain.data.index import DataError
from mmtrain.io.paths import expand_user
from mmtrain.io.text import redact


@dataclass(frozen=True)
class SourceOptions:
    """How inputs are to be read."""

    columns: Columns = Columns()
    image_root: str | None = None  # folder or address that image names are seen from; None: where the table lies
    questions: tuple[tuple[str, str | None], ...] = ()  # VQA v2: files of questions, each with that of its annotations
    splits: tuple[str, ...] = ()  # of files that give each image one, as Karpathy's
    table: TableRules = TableRules()  # what the names in a table may lead to
    group: bool = False  # rows that name the same image become one sample with several captions


def read_rows(places: Sequence[str], options: SourceOptions, downloads: Path | None = None) -> list[Row]:
    """The samples of all inputs in their order (a folder: sorted by path), numbered from 0.

    Inputs behind an address are first fetched into the folder `downloads`. DataError where one cannot be read at all.
    """
    check_kept_columns(options.columns)
    rows = (row for one in resolve_inputs(places, downloads) for row in _rows_of(one, options))
    if options.group:
        rows = iter(_grouped(rows))
    return [replace(row, number=number) for number, row in enumerate(rows)]


def _rows_of(one: Input, options: SourceOptions) -> Iterator[Row]:
    if one.kind is Kind.TARS:
        return tar_rows(one.paths, options.columns.caption)
    if one.kind is Kind.IMAGES:
        return image_rows(one.paths[0], one.entries, options.columns)
    root = one.root if options.image_root is None else expand_user(options.image_root)
    rows = _fetched_rows(one, root, options) if one.address else _table_rows(one.paths[0], root, options)
    return confine(rows, root, options.table)


def _fetched_rows(one: Input, root: str, options: SourceOptions) -> Iterator[Row]:
    """The rows of a table that was fetched; what is wrong with it is said of its address, not of the copy."""
    try:
        yield from _table_rows(one.paths[0], root, options)
    except DataError as error:
        raise DataError(str(error).replace(str(one.paths[0]), redact(one.address))) from error


def _table_rows(path: Path, root: str, options: SourceOptions) -> Iterator[Row]:
    suffix = path.suffix.lower()
    if suffix == JSON_SUFFIX:
        content = json_content(path)
        if is_karpathy(content):
            return karpathy_rows(path, content, root, options.splits, options.questions)
        return coco_rows(path, content, root, options.questions)
    if suffix == TOKEN_SUFFIX:
        return token_rows(path, root)
    if suffix == ".csv" and is_flickr_table(path):
        return flickr_rows(path, root, options.splits)
    return table_rows(path, options.columns, root)


def _grouped(rows: Iterator[Row]) -> list[Row]:
    """Rows of one image joined where the first of them stands; of kept values that differ the first one stays."""
    joined: dict[object, Row] = {}
    for number, row in enumerate(rows):
        name = number if row.image is None else row.image
        first = joined.get(name)
        joined[name] = _joined(first, row) if first else row
    return list(joined.values())


def _joined(first: Row, row: Row) -> Row:
    facts, losses = first.facts, first.losses + row.losses
    if isinstance(row.facts, dict) and isinstance(facts, dict | None):
        facts = row.facts | (facts or {})
        differing = [name for name, value in row.facts.items() if repr(facts[name]) != repr(value)]
        losses += tuple(Loss("value differs from that of the first row", name) for name in differing)
    return replace(first, captions=first.captions + row.captions, facts=facts, losses=losses)
