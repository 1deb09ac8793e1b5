"""What an objective is: it asks for rows, and turns what the model found in them into one loss."""

from dataclasses import dataclass
from typing import Protocol

import torch

from mmtrain.records import Batch, Features


@dataclass(frozen=True)
class Totals:
    """What the losses are means over: counts of the whole global batch, agreed on before the first backward pass."""

    pairs: float  # samples with an image and a text
    matches: float  # pairs, and hard negatives made of them
    masked_tokens: float
    next_tokens: float


class Objective(Protocol):
    """One loss. Its values over all micro-batches and data-parallel ranks add up to the mean over the global batch."""

    name: str  # as the log calls it, behind `loss_`
    rows: frozenset[str]  # the kinds of rows it reads

    def loss(self, features: Features, batch: Batch, totals: Totals) -> torch.Tensor:
        """This rank's share of the mean, a scalar that gradients flow through."""
        ...


def share(sum_of_losses: torch.Tensor, total: float) -> torch.Tensor:
    """A sum's share of a mean over `total`; 0 where nothing was counted anywhere."""
    return sum_of_losses / max(total, 1.0)
