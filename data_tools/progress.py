"""A progress bar with time left on a terminal, nothing elsewhere."""

import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from mmtrain.io.console import plain_console


class Progress:
    """Shows how much of `total` is done; written to standard error, so that a pipe gets results only."""

    def __init__(self, what: str, total: int | None) -> None:
        console = plain_console(stderr=True)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        times = (TextColumn("{task.fields[note]}", markup=False), TimeElapsedColumn(), TimeRemainingColumn())
        self._bar = RichProgress(*columns, *times, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(what, total=total, note="")
        self._start, self._done, self._left_out = time.monotonic(), 0, 0

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, count: int = 1, *, left_out: int = 0) -> None:
        """`count` more are done, `left_out` of them without a sample."""
        self._done, self._left_out = self._done + count, self._left_out + left_out
        rate = self._done / max(time.monotonic() - self._start, 1e-3)
        share = f", {self._left_out / self._done:.1%} left out" if self._left_out else ""
        self._bar.update(self._task, advance=count, note=f"{rate:.0f}/s{share}")
