"""Who holds a stage's weights, gradients and optimizer states, and moves them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from mmtrain.engine.optim import Part
from mmtrain.model.chunks import StageModel


class States(Protocol):
    """A stage of the model under its optimizer."""

    model: StageModel

    def __call__(self, *inputs: Any) -> Any:
        """Run the stage."""
        ...

    def during_passes(self) -> AbstractContextManager[None]:
        """Around all passes of one optimizer step."""
        ...

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        """Add this loss's gradients; `is_last` closes the step's accumulation."""
        ...

    def gradients(self) -> Iterator[torch.Tensor]:
        """This rank's part of the gradients as the optimizer will read them; between the passes and `move`."""
        ...

    def move(self, learning_rate: float) -> float:
        """One optimizer step; returns the norm of the whole model's gradient before clipping."""
        ...

    def drop(self) -> None:
        """Instead of `move`: forget the step's gradients, and change nothing else."""
        ...

    def whole_gradients(self) -> Iterator[tuple[str, torch.Tensor]]:
        """What `gradients` yields parts of, by parameter, uncut along dp, in float32. All dp ranks call."""
        ...

    def parts(self) -> Iterator[Part]:
        """This rank's own of every float32 weight and its moments; the ranks of `data` hold each element once."""
        ...

    def count_updates(self) -> int:
        """How often the optimizer has moved the weights."""
        ...

    def take_up(self, num_updates: int) -> None:
        """Go on from what was written into `parts`, as after `num_updates` moves. All dp ranks call."""
        ...
