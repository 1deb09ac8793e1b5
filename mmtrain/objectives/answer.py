"""The choice among a list of answers, each right to the degree to which people agree on it (Teney et al. 2017).

Axes: B samples, A answers to choose from, K of them that are right.
"""

import torch
import torch.nn.functional as F

from mmtrain.objectives.contract import Totals, share
from mmtrain.records import Batch, Features


class AnswerChoice:
    """Binary cross-entropy of every answer of the list, summed, over questions about an image."""

    name = "answer"
    rows = frozenset({"clean", "positive"})

    def loss(self, features: Features, batch: Batch, totals: Totals) -> torch.Tensor:
        logits_BA, pair_B = features["answer_logits_BA"], batch.has_image_B & batch.has_text_B
        losses_BA = F.binary_cross_entropy_with_logits(logits_BA, targets_of(batch, logits_BA), reduction="none")
        return share((losses_BA.sum(dim=-1) * pair_B).sum(), totals.pairs)


def targets_of(batch: Batch, logits_BA: torch.Tensor) -> torch.Tensor:
    """[B, A]: how right each answer is; 0 for those that nobody gave."""
    is_there_BK = batch.answer_ids_BK >= 0
    scores_BK = batch.answer_scores_BK.to(logits_BA.dtype) * is_there_BK
    return torch.zeros_like(logits_BA).scatter_add(1, batch.answer_ids_BK.clamp_min(0), scores_BK)
