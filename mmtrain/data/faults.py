"""What can be wrong with data: one sample that is left out, or a whole set that a run cannot use."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mmtrain.io.errors import InputError

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
        return f"{self.shard}: {self.key or '(no sample)'}: {self.reason}"


class FaultTally:
    """Counts the samples that could not be used, and stops the run when they are too many."""

    def __init__(self, knob: str, max_bad_share: float) -> None:
        self.num_bad, self.num_read = 0, 0
        self._knob, self._max_bad_share = knob, max_bad_share
        # A sample that is bad is bad in every epoch, but one line about it is enough.
        self._seen: dict[Fault, None] = {}

    def add(self, faults: Sequence[Fault], num_read: int) -> None:
        """Count `num_read` more samples, of which `faults` were left out, and log each fault once."""
        self.num_read += num_read
        self.num_bad += len(faults)
        for fault in faults:
            if fault not in self._seen:
                self._seen[fault] = None
                LOG.warning("left out: %s", fault)

    def check(self, least_read: int = NUM_READ_BEFORE_CHECK) -> None:
        """DataError naming data.max_bad_share when too many of at least `least_read` samples were bad."""
        if self.num_read < least_read or self.num_bad <= self._max_bad_share * self.num_read:
            return
        first = "".join(f"\n  - {fault}" for fault in list(self._seen)[:NUM_FAULTS_SHOWN])
        raise DataError(
            f"{self.num_bad} of {self.num_read} samples of {self._knob} could not be used, more than "
            f"data.max_bad_share ({self._max_bad_share}) allows; mend the shards (`mmdata verify` names "
            f"all that is wrong) or raise it. The first:{first}"
        )
