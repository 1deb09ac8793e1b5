"""How micro-batches go through the model on one stage: forward, loss and backward, one after the other."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch

from mmtrain.model.rows import Layout, plan_rows
from mmtrain.records import Batch, Features

Losses = dict[str, torch.Tensor]
LossOf = Callable[[Features, Batch], Losses]  # of one micro-batch; `loss` is what gradients flow from


class Passes(Protocol):
    """Runs micro-batches through however many stages. Only the last stage sees features and losses."""

    sees_features: bool

    def agreed(self, batches: Sequence[Batch]) -> list[Batch]:
        """The batches as all stages see them: what one could not read is empty for all."""
        ...

    def train(self, batches: list[Batch], layout: Layout, loss_of: LossOf) -> list[Losses]:
        """Forward and backward of every micro-batch; the detached losses of each on the last stage, else none."""
        ...

    def infer(self, batches: Iterable[Batch], layout: Layout) -> Iterator[tuple[Batch, Features | None]]:
        """Each batch, on the device, with its features; None on every stage but the last. No gradients."""
        ...


def detached(losses: Losses) -> Losses:
    """The values alone."""
    return {name: loss.detach() for name, loss in losses.items()}


class StraightPasses:
    """One stage that holds the whole depth. To train, `stage` must be the states around the model."""

    sees_features = True

    def __init__(self, stage: Callable[..., Any], device: torch.device) -> None:
        self.stage, self.device = stage, device

    def agreed(self, batches: Sequence[Batch]) -> list[Batch]:
        return list(batches)

    def train(self, batches: list[Batch], layout: Layout, loss_of: LossOf) -> list[Losses]:
        found = []
        for number, batch in enumerate(batches, 1):
            features = self.stage(plan_rows(batch, layout).to(self.device))
            losses = loss_of(features, batch.to(self.device))
            self.stage.backward(losses["loss"], is_last=number == len(batches))
            found.append(detached(losses))
        return found

    def infer(self, batches: Iterable[Batch], layout: Layout) -> Iterator[tuple[Batch, Features | None]]:
        for batch in batches:
            with torch.no_grad():
                yield batch.to(self.device), self.stage(plan_rows(batch, layout).to(self.device))
