"""Masked language modeling, the image beside the text (Devlin et al. 2019; Chen et al. 2020)."""

import torch

from mmtrain.objectives.contract import Totals, share
from mmtrain.parallel.collectives import token_losses
from mmtrain.records import Batch, Features


class MaskedLanguageModeling:
    """Cross-entropy of the masked tokens, given the other tokens and the image."""

    name = "mlm"
    rows = frozenset({"masked"})

    def loss(self, features: Features, batch: Batch, totals: Totals) -> torch.Tensor:
        losses_N = token_losses(features["token_logits"]["masked"], features["token_labels"]["masked"])
        return share(losses_N.sum(), totals.masked_tokens)
