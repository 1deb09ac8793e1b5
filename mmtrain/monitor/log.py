"""What a run leaves behind while it goes: log.jsonl, TensorBoard, and lines on the terminal. One rank writes."""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from mmtrain.io.atomic import atomic_write
from mmtrain.io.command import naming
from mmtrain.io.console import print_log
from mmtrain.io.documents import read_document
from mmtrain.io.json_text import JsonError, lenient_json
from mmtrain.io.utf8_paths import utf8_path

if TYPE_CHECKING:
    import numpy as np
    from torch.utils.tensorboard import SummaryWriter

Row = dict[str, Any]  # one line of log.jsonl: always `step`; with `eval` where it holds scores

LOG = logging.getLogger("mmtrain.monitor")
LINES = "log.jsonl"
MAX_LOG_BYTES = 4 * 2**30
TENSORBOARD_FLUSH_SECONDS = 10  # what a killed run may lose


class RunLog:
    """Appends to RUN_DIR/log.jsonl and RUN_DIR/tensorboard/; on a rank that does not write, calls do nothing."""

    def __init__(self, run_dir: Path, *, writes: bool) -> None:
        self.writes = writes
        self.run_dir = run_dir
        self._lines: TextIO | None = None
        self._board: SummaryWriter | None = None
        self._board_place = ExitStack()
        self._first_step: int | None = None  # from here on TensorBoard forgets what an earlier attempt has shown
        if writes:
            self._open()

    def write(self, row: Row) -> None:
        """Append `row` as a line of JSON at full precision, flushed, and its numbers as TensorBoard scalars.

        JSON knows no NaN and no infinity: they become null.
        """
        if self._lines is None:
            return
        row = {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in row.items()}
        with naming(self.run_dir / LINES):
            self._lines.write(json.dumps(row, allow_nan=False) + "\n")
            self._lines.flush()
        group = f"eval_{row['eval']}" if "eval" in row else "train"
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                self.board.add_scalar(f"{group}/{name}", value, row["step"])

    def show(self, step: int, name: str, image_HWC: "np.ndarray") -> None:
        """Put a uint8 picture on TensorBoard."""
        if self._lines is not None:
            self.board.add_image(name, image_HWC, step, dataformats="HWC")

    def keep_answers(self, name: str, rows: list[Row]) -> None:
        """Write RUN_DIR/answers/NAME.json, in place of that of an earlier evaluation."""
        if self._lines is None:
            return
        path = self.run_dir / "answers" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        atomic_write(path, json.dumps(rows, ensure_ascii=False, indent=0))

    def cut(self, keeps: Callable[[Row], bool]) -> list[Row]:
        """Forget every row that `keeps` says no to, from the file and from TensorBoard; the rows that stay.

        Lines that are no rows stay where they are.
        """
        if self._lines is None:
            return []
        path = self.run_dir / LINES
        lines = [(line, _row_of(line)) for line in _read(path).splitlines(keepends=True)]
        left = [(line, row) for line, row in lines if row is None or keeps(row)]
        if len(left) < len(lines):
            self._lines.close()
            atomic_write(path, b"".join(line for line, _ in left))
            self._lines = path.open("a", encoding="utf-8")
        kept = [row for _, row in left if row is not None]
        self._first_step = 1 + max((row["step"] for row in kept), default=0)
        return kept

    def close(self) -> None:
        """Flush and let go of the files; the log takes no more rows."""
        if self._lines is not None:
            with naming(self.run_dir / LINES):
                self._lines.close()
        if self._board is not None:
            self._board.close()
        self._board_place.close()
        self._lines = self._board = None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def board(self) -> "SummaryWriter":
        """TensorBoard, opened when there is something to show."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter  # a second to import: only where it is used

            folder = self.run_dir / "tensorboard"
            folder.mkdir(exist_ok=True)
            place = self._board_place.enter_context(utf8_path(folder))
            self._board = SummaryWriter(str(place), flush_secs=TENSORBOARD_FLUSH_SECONDS, purge_step=self._first_step)
        return self._board

    def _open(self) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        path = self.run_dir / LINES
        _mend(path)
        self._lines = path.open("a", encoding="utf-8")


def read_rows(run_dir: Path) -> list[Row]:
    """The rows of RUN_DIR/log.jsonl, oldest first. Lines that are none are passed over, and counted in one warning.

    A kill or a loss of power leaves half a line or zeros, also amid the file where a run has gone on since.
    """
    path = run_dir / LINES
    content = _read(path)
    rows = [_row_of(line) for line in content.removesuffix(b"\n").split(b"\n")] if content else []
    if num_others := rows.count(None):
        LOG.warning("%s: %d of %d lines are no rows of a log and are passed over", path, num_others, len(rows))
    return [row for row in rows if row is not None]


def _read(path: Path) -> bytes:
    """The content of a log; DocumentError where it is no regular file: a named pipe would wait for a writer."""
    return read_document(path, max_bytes=MAX_LOG_BYTES)


def _row_of(line: bytes) -> Row | None:
    """The row in a line: a JSON object with a whole number as its step, and if it holds scores a name; else None."""
    try:
        row = lenient_json(line.decode())
    except (JsonError, UnicodeDecodeError):
        return None
    is_row = isinstance(row, dict) and type(row.get("step")) is int and isinstance(row.get("eval", ""), str)
    return row if is_row else None


def _mend(path: Path) -> None:
    """End a last line that has no end, if it is a row, else cut it off: the run before was killed while it wrote."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if _row_of(content[whole:]) is not None:
            file.write(b"\n")
        else:
            file.truncate(whole)


class _ToStderr(logging.Handler):
    """Writes to what sys.stderr is at that moment: a live progress line puts itself there to stay below the rest.

    A terminal that has gone away ends no run.
    """

    def emit(self, record: logging.LogRecord) -> None:
        print_log(self.format(record))


def start_logging(*, rank: int, fields: Mapping[str, str] | None = None) -> None:
    """Send what mmtrain's loggers say to stderr: from rank 0 all, from the others warnings with their rank before them.

    `fields` are further words for each line, such as the host. Calling it again replaces what the call before set.
    """
    names = {"rank": str(rank), **(fields or {})}
    words = "" if rank == 0 and not fields else "[" + " ".join(f"{name} {word}" for name, word in names.items()) + "] "
    handler = _ToStderr()
    handler.setFormatter(logging.Formatter(words.replace("%", "%%") + "%(message)s"))
    logger = logging.getLogger("mmtrain")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
