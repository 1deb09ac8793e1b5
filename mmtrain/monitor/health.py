"""Whether a run is well: what is done about steps that were left out, and about a loss that leaps."""

import logging
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Protocol

from mmtrain.config.schema import SurvivalConfig
from mmtrain.parallel.launch import RunStopped
from mmtrain.parallel.meeting import told_by_first
from mmtrain.records import StepReport

LOG = logging.getLogger("mmtrain.monitor")
NUM_NAMED = 8  # samples of a batch that a message names
LEAST_DEVIATION = 0.01  # of the median: losses that hardly move are no reason to call the next one a leap


class Sampled(Protocol):
    """What is asked of a stream."""

    def last_places(self) -> range:
        """The places of the run whose samples it gave last."""
        ...

    def names(self, places: Sequence[int]) -> list[str]:
        """The samples there."""
        ...


class Health:
    """Looks at the report of every step; all ranks see the same reports and come to the same end, one `speaks`."""

    def __init__(self, plan: SurvivalConfig, *, speaks: bool) -> None:
        self.plan, self.speaks = plan, speaks
        self._num_in_a_row = self._num_leaps = self._leapt_at = 0
        self._has_warned_of_saves = False
        self._losses: deque[float] = deque(maxlen=plan.spike_window)

    def resume(self, losses: Sequence[float]) -> None:
        """Measure the next loss by those of the steps before it; only the rank that speaks needs to know them."""
        self._losses = deque(losses, maxlen=self.plan.spike_window)

    def look(self, step: int, report: StepReport, stream: Sampled) -> bool:
        """Warn of a step that was left out or whose loss leapt; whether the run is to go back to before it.

        RunStopped after too many in a row of either.
        """
        if report.is_skipped:
            self._look_at_skipped(step, report, stream)
            return False
        self._num_in_a_row = 0
        loss, bound = report.losses["loss"], self.bound()
        is_leap = self.plan.spike_policy != "none" and bound is not None and loss > bound
        if is_leap:
            self._warn(
                f"step {step}: the loss leapt to {loss:.4g}, above {bound:.4g} (survival.spike_deviations over the "
                f"last {len(self._losses)}); its samples: {_named(stream, stream.last_places())}"
            )
        self._losses.append(loss)
        if self.plan.spike_policy != "roll_back":
            return False
        # One rank decides: the last bits of a loss may differ between tensor-parallel ranks.
        is_leap = told_by_first(is_leap)
        self._count_leaps(step, is_leap)
        return is_leap

    def look_at_save(self, seconds: float) -> None:
        """Warn, once, where a launcher would not wait for a save that a signal asked for."""
        if seconds > self.plan.grace_seconds and not self._has_warned_of_saves:
            self._has_warned_of_saves = True
            self._warn(
                f"a save took {seconds:.1f} s, but a launcher may end the run survival.grace_seconds "
                f"({self.plan.grace_seconds:g}) after its signal: let it wait longer, or signal the ranks earlier"
            )

    def _count_leaps(self, step: int, is_leap: bool) -> None:
        if step > self._leapt_at and not is_leap:
            self._num_leaps = 0
        if is_leap:
            self._num_leaps, self._leapt_at = self._num_leaps + 1, step
        if self._num_leaps > self.plan.max_skipped_in_a_row:
            raise RunStopped(
                f"the loss leapt {self._num_leaps} times at step {step} or before it, each time with other samples, "
                f"more than survival.max_skipped_in_a_row ({self.plan.max_skipped_in_a_row}) allows; lower "
                "train.learning_rate, or raise survival.spike_deviations"
            )

    def bound(self) -> float | None:
        """The largest loss that is no leap: the median of the last and so many times their median deviation from it.

        None until there are enough of them.
        """
        if len(self._losses) < self.plan.spike_window:
            return None
        middle = median(self._losses)
        deviation = median(abs(loss - middle) for loss in self._losses)
        return middle + self.plan.spike_deviations * max(deviation, LEAST_DEVIATION * abs(middle))

    def _look_at_skipped(self, step: int, report: StepReport, stream: Sampled) -> None:
        self._num_in_a_row += 1
        samples = _named(stream, report.bad_places or stream.last_places())
        self._warn(
            f"step {step} was left out: a loss or gradient is no finite number ({self._num_in_a_row} in a row); "
            f"its samples: {samples}"
        )
        if self._num_in_a_row > self.plan.max_skipped_in_a_row:
            raise RunStopped(
                f"step {step} is number {self._num_in_a_row} in a row with a loss or gradient that is no finite "
                f"number, more than survival.max_skipped_in_a_row ({self.plan.max_skipped_in_a_row}) allows; its "
                f"samples: {samples}; look at them, or lower train.learning_rate"
            )

    def _warn(self, sentence: str) -> None:
        if self.speaks:
            LOG.warning("%s", sentence)


def _named(stream: Sampled, places: Sequence[int]) -> str:
    """The first of the samples at `places` of the run, by place, shard and key."""
    first = list(places[:NUM_NAMED])
    said = ", ".join(f"place {place} ({name})" for place, name in zip(first, stream.names(first), strict=True))
    return said + (f" and {len(places) - NUM_NAMED} more" if len(places) > NUM_NAMED else "")
