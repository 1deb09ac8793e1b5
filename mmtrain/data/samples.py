"""One sample, ready to be laid into a batch: read, decoded, cropped, tokenized and masked."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mmtrain.data.draws import Purpose, generator
from mmtrain.data.faults import Fault
from mmtrain.data.images import ImageError, decode, fit, mirror, random_crop
from mmtrain.data.masking import mask_tokens
from mmtrain.data.table import SampleError, SampleTable
from mmtrain.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sample:
    """An image and its caption; the axes are those of records.Batch without B."""

    image_CHW: torch.Tensor  # uint8
    ids_T: np.ndarray  # int64: [CLS] caption [SEP]
    masked_ids_T: np.ndarray  # int64
    masked_labels_T: np.ndarray  # int64
    image_id: int
    caption_id: int
    draws_2: np.ndarray  # float64


@dataclass(frozen=True)
class SampleReader:
    """Reads samples by number; what is random about one is drawn from (seed, epoch, sample)."""

    table: SampleTable
    tokenizer: Tokenizer
    seed: int
    image_size: int  # pixels
    max_text_length: int  # tokens
    mask_share: float
    min_crop_share: float = 1.0
    flip: bool = False
    image_of: np.ndarray | None = None  # the sample whose image goes with each caption; None: its own
    caption_of: Callable[[int], str] | None = None  # the caption of a sample; None: as it is stored

    def read(self, sample: int, epoch: int = 0) -> Sample | Fault:
        """The sample as it is in `epoch`, or why it cannot be used."""
        shown = sample if self.image_of is None else int(self.image_of[sample])
        at_fault = shown
        try:
            content, said = self.table.image(shown), self.table.metadata(shown)
            image_id = _id(said.get("image_id"), content)
            pixels_CHW = decode(content)
            at_fault = sample
            caption, caption_name = self._caption(sample, said if shown == sample else self.table.metadata(sample))
        except (SampleError, ImageError) as error:
            return self.table.fault(at_fault, str(error))
        caption_id = _id(caption_name, caption.encode())
        image_CHW = self._augment(pixels_CHW, caption, sample, epoch)
        return self._dress(image_CHW, caption, (image_id, caption_id), sample, epoch)

    def _caption(self, sample: int, said: dict) -> tuple[str, object]:
        """The caption, and the name that the metadata gives to it; another caption than the stored one has none."""
        if self.caption_of is None:
            return self.table.caption(sample), said.get("caption_id")
        return self.caption_of(sample), None

    def _augment(self, pixels_CHW: torch.Tensor, caption: str, sample: int, epoch: int) -> torch.Tensor:
        if self.min_crop_share < 1:
            numbers = generator(self.seed, Purpose.CROP, epoch, sample)
            image_CHW = random_crop(pixels_CHW, self.image_size, self.min_crop_share, numbers)
        else:
            image_CHW = fit(pixels_CHW, self.image_size)
        if self.flip:
            image_CHW = mirror(image_CHW, caption, generator(self.seed, Purpose.FLIP, epoch, sample))
        return image_CHW

    def _dress(self, image_CHW: torch.Tensor, caption: str, ids: tuple[int, int], sample: int, epoch: int) -> Sample:
        ids_T = np.array(self.tokenizer.encode(caption, self.max_text_length), np.int64)
        numbers = generator(self.seed, Purpose.MASK, epoch, sample)
        masked_ids_T, masked_labels_T = mask_tokens(ids_T, self.mask_share, self.tokenizer.num_pieces, numbers)
        draws_2 = generator(self.seed, Purpose.NEGATIVES, epoch, sample).random(2)
        return Sample(image_CHW, ids_T, masked_ids_T, masked_labels_T, *ids, draws_2)


def _id(said: object, content: bytes) -> int:
    """63 bits that stand for the name that was said, or for the content where none was."""
    named = isinstance(said, (str, int)) and said != ""
    digest = hashlib.blake2b(str(said).encode() if named else content, digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
