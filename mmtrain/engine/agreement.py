"""Pipeline stages read the same samples, but only the first decodes images: all must know which could not be used.

Axes: B samples of a micro-batch, T text positions, K micro-batches.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.distributed as dist

from mmtrain.records import IGNORED_LABEL, Batch


def agree_on_samples(batches: Sequence[Batch], pipe: dist.ProcessGroup, device: torch.device) -> list[Batch]:
    """The batches with every sample empty that any stage found unusable. Every stage brings the same batches."""
    own_KB2 = torch.stack([torch.stack([batch.has_image_B, batch.has_text_B], dim=1) for batch in batches])
    agreed = own_KB2.to(device, torch.int32)
    dist.all_reduce(agreed, op=dist.ReduceOp.MIN, group=pipe)
    agreed_KB2 = agreed.bool().cpu()
    return [
        batch if torch.equal(own_B2, agreed_B2) else emptied(batch, (own_B2 != agreed_B2).any(dim=1))
        for batch, own_B2, agreed_B2 in zip(batches, own_KB2, agreed_KB2, strict=True)
    ]


def emptied(batch: Batch, gone_B: torch.Tensor) -> Batch:
    """`batch` with the samples `gone_B` as they are where a reader could not use them."""
    column_B1 = gone_B[:, None]
    none_B = -1 - batch.places_B  # ids that equal no other sample's
    return replace(
        batch,
        text_ids_BT=batch.text_ids_BT.masked_fill(column_B1, 0),
        masked_ids_BT=batch.masked_ids_BT.masked_fill(column_B1, 0),
        masked_labels_BT=batch.masked_labels_BT.masked_fill(column_B1, IGNORED_LABEL),
        text_lengths_B=batch.text_lengths_B.masked_fill(gone_B, 0),
        has_image_B=batch.has_image_B & ~gone_B,
        has_text_B=batch.has_text_B & ~gone_B,
        image_ids_B=torch.where(gone_B, none_B, batch.image_ids_B),
        caption_ids_B=torch.where(gone_B, none_B, batch.caption_ids_B),
    )
