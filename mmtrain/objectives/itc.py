"""Image-text contrast: symmetric InfoNCE over every pair of the micro-batch, on all data-parallel ranks together.

Axes: B samples of this rank, N samples of all ranks, E shared embedding.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F

from mmtrain.objectives.contract import Totals, share
from mmtrain.parallel.collectives import gather_rows, gather_rows_with_grad
from mmtrain.records import Batch, Features


class ImageTextContrast:
    """Pull each image to its caption and push it from every other (van den Oord et al. 2018; Radford et al. 2021)."""

    name = "itc"
    rows = frozenset({"clean"})

    def __init__(self, data_group: dist.ProcessGroup) -> None:
        self.group = data_group

    def loss(self, features: Features, batch: Batch, totals: Totals) -> torch.Tensor:
        image_BE, text_BE = features["image_BE"], features["text_BE"]
        pair_B = batch.has_image_B & batch.has_text_B
        pair_N = gather_rows(pair_B, self.group)
        own_B = torch.arange(pair_B.shape[0], device=pair_B.device) + dist.get_rank(self.group) * pair_B.shape[0]
        both_ways = (
            (image_BE, gather_rows_with_grad(text_BE, self.group)),
            (text_BE, gather_rows_with_grad(image_BE, self.group)),
        )
        losses_B = sum(
            contrast(query_BE, key_NE, features["temperature"], own_B, pair_N) for query_BE, key_NE in both_ways
        )
        return share((losses_B * pair_B).sum() / 2, totals.pairs)


def contrast(
    query_BE: torch.Tensor, key_NE: torch.Tensor, temperature: torch.Tensor, own_B: torch.Tensor, legal_N: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy [B] of finding the key `own_B` among the legal keys by similarity / temperature."""
    logits_BN = query_BE @ key_NE.t() / temperature
    # A query's own key always stays, so that a row without any legal key is finite; its caller weighs it with 0.
    is_own_BN = torch.arange(key_NE.shape[0], device=own_B.device) == own_B[:, None]
    return F.cross_entropy(logits_BN.masked_fill(~(legal_N | is_own_BN), -torch.inf), own_B, reduction="none")
