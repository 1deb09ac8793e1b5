"""What the loop knows of an engine."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch

from mmtrain.engine.passes import Passes
from mmtrain.parallel.slices import Slice
from mmtrain.records import Batch, EvalReport, StepReport


class Scorer(Protocol):
    """Scores a model on the held-out split; every rank must call it at the same step."""

    def run(self, passes: Passes) -> EvalReport:
        """Every score, the same on every rank, and the answers behind them."""
        ...


class Engine(Protocol):
    """A model under an optimizer, on however many ranks. Every rank calls every method at the same step."""

    def step(self, micro_batches: Sequence[Batch]) -> StepReport:
        """One optimizer step over this rank's micro-batches of the global batch."""
        ...

    def evaluate(self) -> EvalReport:
        """Scores of the held-out split, the same on every rank."""
        ...

    def summed(self, values: list[float]) -> list[float]:
        """Each of `values` summed over the data-parallel ranks."""
        ...

    def held(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        """The rectangles of float32 weights (by name) and their moments (`exp_avg/NAME`, ...) that lie on this rank.

        The tensors are the engine's own memory: to read before the next step, or to write to before `take_up`.
        """
        ...

    def kept(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        """Those of `held` that this rank is to keep: all ranks' tile every tensor, and none was gathered for it."""
        ...

    def hold(self, until: Callable[[], None]) -> None:
        """Call `until` before any of `held` changes next: what copies them needs them as they are until it returns."""
        ...

    def progress(self) -> dict[str, int]:
        """What `take_up` needs beside the tensors to go on exactly from here."""
        ...

    def take_up(self, progress: dict[str, int]) -> None:
        """Go on from what was written into `held`."""
        ...
