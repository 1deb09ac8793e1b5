"""Captioning: the next token, given the image as prefix and the tokens before it (Wang et al. 2022; Li et al. 2022)."""

import torch

from mmtrain.objectives.contract import Totals, share
from mmtrain.parallel.collectives import smoothed_token_losses
from mmtrain.records import Batch, Features


class Captioning:
    """Cross-entropy of each next token of the caption, [SEP] among them."""

    name = "lm"
    rows = frozenset({"causal"})

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def loss(self, features: Features, batch: Batch, totals: Totals) -> torch.Tensor:
        losses_N = smoothed_token_losses(
            features["token_logits"]["causal"], features["token_labels"]["causal"], self.label_smoothing
        )
        return share(losses_N.sum(), totals.next_tokens)
