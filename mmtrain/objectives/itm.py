"""Image-text matching: tell a pair from the same image, or the same caption, with a hard negative (Li et al. 2021)."""

import torch
import torch.nn.functional as F

from mmtrain.objectives.contract import Totals, share
from mmtrain.records import Batch, Features

APART, TOGETHER = 0, 1


class ImageTextMatching:
    """Binary cross-entropy over true pairs and the hard negatives that the model drew."""

    name = "itm"
    rows = frozenset({"clean", "positive", "negative_image", "negative_text"})

    def loss(self, features: Features, batch: Batch, totals: Totals) -> torch.Tensor:
        pair_B, negative_B = batch.has_image_B & batch.has_text_B, features["has_negative_B"]
        read = {
            "positive": (TOGETHER, pair_B),
            "negative_image": (APART, negative_B),
            "negative_text": (APART, negative_B),
        }
        losses = [
            (match_losses(features["match_logits"][kind], truth) * counted_B).sum()
            for kind, (truth, counted_B) in read.items()
        ]
        return share(torch.stack(losses).sum(), totals.matches)


def match_losses(logits_B2: torch.Tensor, truth: int) -> torch.Tensor:
    """Cross-entropy [B] of rows that are all `truth`."""
    return F.cross_entropy(logits_B2, torch.full_like(logits_B2[:, 0], truth, dtype=torch.int64), reduction="none")
