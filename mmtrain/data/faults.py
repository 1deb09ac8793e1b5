"""What can be wrong with data: one sample that is left out, or a whole set that a run cannot use."""

from dataclasses import dataclass


class DataError(Exception):
    """The data cannot be used as the run asks; the message says what was found and which knob to turn."""


@dataclass(frozen=True)
class Fault:
    """Why one sample, or one part of a shard, is left out."""

    shard: str  # file name of the tar
    key: str  # the sample's key, empty where the shard itself is at fault
    reason: str

    def __str__(self) -> str:
        return f"{self.shard}: {self.key or '(no sample)'}: {self.reason}"
