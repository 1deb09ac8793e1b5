"""What the loop knows of an engine."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from mmtrain.parallel.slices import Slice
from mmtrain.records import Batch, StepReport


class Engine(Protocol):
    """A model under an optimizer, on however many ranks. Every rank calls every method at the same step."""

    def step(self, micro_batches: Sequence[Batch]) -> StepReport:
        """One optimizer step over this rank's micro-batches of the global batch."""
        ...

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Scores of the held-out split by the evaluation's name, the same on every rank."""
        ...

    def weights(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        """This rank's part of every weight in full precision, on the host, one at a time."""
        ...
