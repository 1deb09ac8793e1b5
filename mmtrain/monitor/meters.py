"""From what a step did to one row of numbers and one line for the eye."""

import logging
import math
import sys
from collections import deque
from collections.abc import Mapping
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from mmtrain.io.console import plain_console
from mmtrain.monitor.log import Row, RunLog
from mmtrain.monitor.pictures import ContactSheet
from mmtrain.records import EvalReport, StepReport

logger = logging.getLogger("mmtrain.monitor")

LOSSES = ("loss", "loss_mlm", "loss_itc", "loss_itm", "loss_lm")
STEPS_REMEMBERED = 50  # the time left is foretold from the mean of the last so many steps
MAX_SECONDS_LEFT = 1e9  # that are shown: some thirty years


class Meters:
    """Turns reports into rows of the log; keeps the running total of samples, and shows the run on the writing rank.

    `peak_tflops` is the device's peak in this run's precision, None where it is not known. `terminal` None: found out
    from stderr. `sheet` draws what held-out images retrieve.
    """

    def __init__(
        self,
        log: RunLog,
        *,
        num_steps: int,
        num_devices: int,
        peak_tflops: float | None,
        terminal: bool | None = None,
        sheet: ContactSheet | None = None,
    ) -> None:
        self.samples = self.skipped = 0
        self._log, self._sheet = log, sheet
        self._num_steps = num_steps
        self._num_devices = num_devices
        self._peak_tflops = peak_tflops
        self._last_seconds: deque[float] = deque(maxlen=STEPS_REMEMBERED)
        on_terminal = sys.stderr.isatty() if terminal is None else terminal
        self._progress = _progress() if log.writes and on_terminal else None
        self._task = self._progress.add_task("", total=num_steps) if self._progress else None

    def resume(self, step: int) -> list[float]:
        """Go on after `step` steps: forget the rows of those that will be run again, and of scores yet to be taken.

        The losses of the steps that stay, on the rank that writes.
        """
        is_over = step >= self._num_steps  # the last scores are taken after the last checkpoint
        rows = self._log.cut(
            lambda row: row["step"] < step or (row["step"] == step and not (is_over and "eval" in row))
        )
        self.samples = max((row["samples"] for row in rows if type(row.get("samples")) is int), default=0)
        self.skipped = max((row["skipped"] for row in rows if type(row.get("skipped")) is int), default=0)
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=step)
        return [row["loss"] for row in rows if isinstance(row.get("loss"), int | float)]

    def record(self, step: int, report: StepReport, *, step_seconds: float, data_wait_seconds: float) -> Row:
        """The row of optimizer step `step` (1 is the first), logged and shown.

        `step_seconds` is the wall time from the end of the step before, `data_wait_seconds` its part spent waiting for
        samples, `skipped` the steps so far that were left out. None are: the loss of an objective with weight 0, the
        temperature where nothing contrasts, mfu without a known peak.
        """
        self.samples += report.num_samples
        self.skipped += report.is_skipped
        self._last_seconds.append(step_seconds)
        tflops = report.flops / step_seconds / self._num_devices / 1e12
        row: Row = {
            "step": step,
            **dict.fromkeys(LOSSES),
            **report.losses,
            "grad_norm": report.grad_norm,
            "lr": report.learning_rate,
            "temperature": None if math.isnan(report.temperature) else report.temperature,
            "samples": self.samples,
            "samples_per_second": report.num_samples / step_seconds,
            "tokens_per_second": report.num_tokens / step_seconds,
            "step_seconds": step_seconds,
            "tflops_per_device": tflops,
            "mfu": None if self._peak_tflops is None else tflops / self._peak_tflops,
            "data_wait_seconds": data_wait_seconds,
            "skipped": self.skipped,
        }
        self._log.write(row)
        self._show_step(step, row)
        return row

    def record_scores(self, step: int, name: str, scores: Mapping[str, float]) -> Row:
        """The row of an evaluation after `step` steps, logged and shown; `scores` are fractions of 1 and counts."""
        row: Row = {"step": step, "eval": name, **scores}
        self._log.write(row)
        if self._log.writes:
            words = "  ".join(f"{score} {_short(value)}" for score, value in scores.items())
            logger.info("step %d  eval %s  %s", step, name, words)
        return row

    def record_evaluation(self, step: int, report: EvalReport) -> None:
        """A row for each evaluation of `report`, its answers, and sheets of the first images with them."""
        for name, scores in report.scores.items():
            self.record_scores(step, name, scores)
        for name, rows in report.answers.items():
            self._log.keep_answers(name, rows)
        if self._sheet and report.retrieved:
            self._sheet.draw(step, report.retrieved)
        if self._sheet and report.shown:
            self._sheet.draw_answers(step, report.shown)

    def close(self) -> None:
        """Leave the terminal as it was; the log stays open."""
        if self._progress:
            self._progress.stop()

    def _show_step(self, step: int, row: Row) -> None:
        if not self._log.writes:
            return
        if self._progress and self._task is not None:
            self._progress.start()
            self._progress.update(self._task, completed=step, description=f"left {self._time_left(step)}  {_line(row)}")
        else:
            logger.info("step %d/%d  %s  left %s", step, self._num_steps, _line(row), self._time_left(step))

    def _time_left(self, step: int) -> timedelta:
        mean_seconds = sum(self._last_seconds) / len(self._last_seconds)
        seconds = mean_seconds * max(0, self._num_steps - step)
        return timedelta(seconds=round(min(seconds, MAX_SECONDS_LEFT)))


def _progress() -> Progress:
    # A narrow terminal cuts the numbers short, neither the bar nor the count of steps.
    bar = BarColumn(bar_width=16, table_column=Column(min_width=16))
    count = MofNCompleteColumn(table_column=Column(no_wrap=True))
    words = TextColumn(
        "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
    )
    return Progress(bar, count, words, console=plain_console(stderr=True), expand=True)


def _line(row: Row) -> str:
    """The numbers of a step that one looks at while it runs."""
    named = [name for name in row if name.startswith("loss") and row[name] is not None]
    losses = "  ".join(f"{name.removeprefix('loss_')} {row[name]:.4f}" for name in named)
    temperature = "" if row["temperature"] is None else f"  T {row['temperature']:.4f}"
    mfu = "" if row["mfu"] is None else f" ({row['mfu']:.1%} of peak)"
    return (
        f"{losses}  grad {row['grad_norm']:.3f}  lr {row['lr']:.2e}{temperature}  "
        f"{row['samples_per_second']:.0f} samples/s  {row['tflops_per_device']:.3g} TFLOP/s{mfu}  "
        f"wait {row['data_wait_seconds']:.3f} s"
    )


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"
