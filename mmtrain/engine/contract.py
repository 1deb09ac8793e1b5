"""What the loop knows of an engine."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from mmtrain.parallel.slices import Slice
from mmtrain.records import Batch, EvalReport, StepReport


class Engine(Protocol):
    """A model under an optimizer, on however many ranks. Every rank calls every method at the same step."""

    def step(self, micro_batches: Sequence[Batch]) -> StepReport:
        """One optimizer step over this rank's micro-batches of the global batch."""
        ...

    def evaluate(self) -> EvalReport:
        """Scores of the held-out split, the same on every rank."""
        ...

    def weights(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        """The weights that this rank is to keep, in float32 on the host, one by one; all ranks' tile the model."""
        ...
