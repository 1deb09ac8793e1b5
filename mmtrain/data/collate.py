"""Samples to one Batch; a sample that could not be used leaves its place empty."""

from collections.abc import Sequence

import numpy as np
import torch

from mmtrain.data.faults import Fault
from mmtrain.data.samples import Sample
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.records import IGNORED_LABEL, Batch

LENGTH_STEP = 8  # trimmed texts end at a multiple of this, so that few lengths occur


def collate(
    samples: Sequence[Sample | Fault | None], places: np.ndarray, *, image_size: int, max_text_length: int, trim: bool
) -> Batch:
    """Lay `samples` at `places` into a batch; whatever is not a Sample is an empty place.

    Texts are as long as the longest of them, rounded up to a multiple of LENGTH_STEP; without `trim`
    they are `max_text_length` long.
    """
    size, length = len(samples), _length(samples, max_text_length) if trim else max_text_length
    images_BCHW = torch.zeros(size, 3, image_size, image_size, dtype=torch.uint8)
    ids_BT = np.full((size, length), Tokenizer.pad_id, np.int64)
    masked_ids_BT, labels_BT = ids_BT.copy(), np.full((size, length), IGNORED_LABEL, np.int64)
    lengths_B, draws_B2 = np.zeros(size, np.int64), np.zeros((size, 2))
    # No two empty places are equal to each other, nor to any sample: real ids are never negative.
    image_ids_B, caption_ids_B = -1 - places, -1 - places
    for row, sample in enumerate(samples):
        if not isinstance(sample, Sample):
            continue
        count = lengths_B[row] = len(sample.ids_T)
        images_BCHW[row] = sample.image_CHW
        ids_BT[row, :count] = sample.ids_T
        masked_ids_BT[row, :count] = sample.masked_ids_T
        labels_BT[row, :count] = sample.masked_labels_T
        image_ids_B[row], caption_ids_B[row] = sample.image_id, sample.caption_id
        draws_B2[row] = sample.draws_2
    rest = (
        ids_BT,
        masked_ids_BT,
        labels_BT,
        lengths_B,
        lengths_B > 0,
        lengths_B > 0,
        image_ids_B,
        caption_ids_B,
        draws_B2,
    )
    return Batch(images_BCHW, *(torch.from_numpy(array) for array in rest), torch.from_numpy(places))


def _length(samples: Sequence[Sample | Fault | None], max_text_length: int) -> int:
    longest = max((len(sample.ids_T) for sample in samples if isinstance(sample, Sample)), default=1)
    return min(-(-longest // LENGTH_STEP) * LENGTH_STEP, max_text_length)
