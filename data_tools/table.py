"""samples.parquet: every row of the input, kept or left out with its reason, and the hashes of its image."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
from pyarrow.parquet import ParquetFile, ParquetWriter

from data_tools.duplicates import SeenImages
from data_tools.fetch import MAY_SUCCEED_LATER
from data_tools.pack import TABLE_NAME
from data_tools.selection import Decision
from mmtrain.data.index import DataError
from mmtrain.io.atomic import atomic_open
from mmtrain.io.file_kinds import A_PARQUET, describe_file
from mmtrain.io.text import encodable

ROWS_PER_GROUP = 8192
SCHEMA = pa.schema(
    [
        ("number", pa.int64()),  # of the row in the input, from 0
        ("key", pa.string()),
        ("source", pa.string()),
        ("kept", pa.bool_()),
        ("shard", pa.int32()),  # number of the shard that has its last sample; null where it is left out
        ("reason", pa.string()),  # null where it is kept
        ("detail", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("bytes", pa.int64()),
        ("num_captions", pa.int32()),
        ("caption", pa.string()),  # the first
        ("sha256", pa.binary()),  # of the bytes that came
        ("look", pa.binary()),  # null where looks were not asked for
    ]
)


class SampleTable:
    """Writes the table as decisions come; it has its name only when it is whole."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / TABLE_NAME
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> "SampleTable":
        with ExitStack() as stack:
            file = stack.enter_context(atomic_open(self._path))
            self._writer = stack.enter_context(ParquetWriter(file, SCHEMA, compression="zstd"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._flush()

    def add(self, decision: Decision) -> None:
        """One more row."""
        self._rows.append(_row(decision))
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA), ROWS_PER_GROUP)
        self._rows = []


def failed_rows(folder: Path) -> dict[int, str]:
    """Numbers and sources of the rows of an earlier build whose image could not be had, though it may be now."""
    rows = _rows_of(folder, ["number", "source", "reason"])
    return {row["number"]: row["source"] for row in rows if row["reason"] in MAY_SUCCEED_LATER}


def remember_kept(folder: Path, seen: SeenImages, *, looks: bool) -> int:
    """Count the images that an earlier build kept as seen; returns how many. DataError where it noted no looks."""
    count = 0
    for row in _rows_of(folder, ["key", "kept", "sha256", "look"]):
        if not row["kept"]:
            continue
        _check_look(folder, row, looks=looks)
        seen.add(row["sha256"], row["look"], f"{row['key']} of {folder.name}")
        count += 1
    return count


def check_table(folder: Path, *, looks: bool) -> None:
    """DataError where `folder` has no table of an earlier build, or none with what images look like where wanted."""
    for row in _rows_of(folder, ["key", "kept", "sha256", "look"]):
        if row["kept"]:
            _check_look(folder, row, looks=looks)
            return


def _check_look(folder: Path, row: dict[str, Any], *, looks: bool) -> None:
    if looks and row["look"] is None:
        raise DataError(
            f"{folder} was built without --dedup near, so nobody noted what its images look like; "
            "build it so, or compare bytes only: --dedup exact"
        )


def _rows_of(folder: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    path = folder / TABLE_NAME
    if not path.exists():
        raise DataError(f"{folder} has no {TABLE_NAME}; `mmdata build` and `mmdata merge` write one")
    try:
        # Opened here: Arrow takes no names that are not UTF-8.
        with open(path, "rb") as file, ParquetFile(file) as table:
            for batch in table.iter_batches(ROWS_PER_GROUP, columns=list(columns)):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        kind = describe_file(path) if path.is_file() else None
        reason = f"it is {kind}" if kind not in (None, A_PARQUET) else f"{error}"
        raise DataError(f"{path} cannot be read as a table of `mmdata build`: {reason}") from error


def _row(decision: Decision) -> dict[str, Any]:
    record = decision.record
    read = bool(record.digest)
    return {
        "number": record.number,
        "key": record.key,
        "source": _text(record.source),
        "kept": decision.shard is not None,
        "shard": decision.shard,
        "reason": record.reason or None,
        "detail": _text(record.detail) or None,
        "width": record.size[0] if read else None,
        "height": record.size[1] if read else None,
        "original_width": record.original_size[0] if read else None,
        "original_height": record.original_size[1] if read else None,
        "bytes": record.num_bytes if read else None,
        "num_captions": len(record.captions) if read else None,
        "caption": record.captions[0] if record.captions else None,
        "sha256": bytes.fromhex(record.digest) if read else None,
        "look": bytes.fromhex(record.look) if record.look else None,
    }


def _text(text: str) -> str:
    """Names of files that are not UTF-8 become readable."""
    return encodable(text)
