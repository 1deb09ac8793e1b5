"""What can be wrong with data: one sample that is left out, or a whole set that a run cannot use."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mmtrain.io.errors import InputError
from mmtrain.io.text import printable

LOG = logging.getLogger("mmtrain.data")
NUM_READ_BEFORE_CHECK = 200  # a share of fewer samples says little
NUM_FAULTS_SHOWN = 5


class SampleError(Exception):
    """A sample cannot be used; the message says why."""


class DataError(InputError):
    """The data cannot be used as the run asks; the message says what was found and which knob to turn."""


@dataclass(frozen=True)
class Fault:
    """Why one sample, or one part of a shard, is left out."""

    shard: str  # file name of the tar
    key: str  # the sample's key, empty where the shard itself is at fault
    reason: str

    def __str__(self) -> str:
        return printable(f"{self.shard}: {self.key or '(no sample)'}: {self.reason}")


class FaultTally:
    """Counts the samples that could not be used, and stops the run when they are too many."""

    def __init__(self, knob: str, max_bad_share: float) -> None:
        self.num_bad, self.num_read = 0, 0
        self._knob, self._max_bad_share = knob, max_bad_share
        # A sample that is bad is bad in every epoch, but one line about it is enough.
        self._seen: dict[Fault, None] = {}

    def log(self, faults: Sequence[Fault]) -> None:
        """Log each fault once."""
        for fault in faults:
            if fault not in self._seen:
                self._seen[fault] = None
                LOG.warning("left out: %s", fault)

    def add(self, faults: Sequence[Fault], num_read: int) -> None:
        """Count `num_read` more samples, of which `faults` were left out, and log each fault once."""
        self.num_read += num_read
        self.num_bad += len(faults)
        self.log(faults)

    def judge_damage(self, faults: Sequence[Fault], num_lost: int, num_left: int) -> None:
        """DataError where damage of shards has taken too many of all their samples.

        `num_lost` samples are lost, `num_left` are left. Faults of a small set that lost nothing more wait for `check`.
        """
        is_counted = num_lost > len(faults)
        self.judge(num_lost, num_lost + num_left, least_read=1 if is_counted else NUM_READ_BEFORE_CHECK)

    def check(self, least_read: int = NUM_READ_BEFORE_CHECK) -> None:
        """DataError naming data.max_bad_share when too many of at least `least_read` samples were bad."""
        self.judge(self.num_bad, self.num_read, least_read)

    def judge(self, num_bad: int, num_read: int, least_read: int = 1) -> None:
        """DataError naming data.max_bad_share when too many of at least `least_read` samples are bad.

        The counts may be those of all ranks; the faults that are named are this rank's.
        """
        if num_read >= least_read and num_bad > self._max_bad_share * num_read:
            raise DataError(
                f"{num_bad} of {num_read} samples of {self._knob} could not be used, more than "
                f"data.max_bad_share ({self._max_bad_share}) allows; mend the shards (`mmdata verify` names "
                f"all that is wrong) or raise it.{self._first()}"
            )

    def refuse_none_usable(self, num_read: int) -> None:
        """DataError that says that none of `num_read` samples can be used, whatever data.max_bad_share allows."""
        raise DataError(
            f"none of the {num_read} samples of {self._knob} that were read can be used; mend the shards "
            f"(`mmdata verify` names all that is wrong).{self._first()}"
        )

    def _first(self) -> str:
        lines = [f"\n  - {fault}" for fault in list(self._seen)[:NUM_FAULTS_SHOWN]]
        return "".join([" The first:", *lines]) if lines else ""
