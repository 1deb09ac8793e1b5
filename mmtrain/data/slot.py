"""The memory of one micro-batch: fixed places for images and records, written by a reader and read by the trainer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mmtrain.data.questions import MAX_TARGETS
from mmtrain.data.samples import BadSample, Sample
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.records import IGNORED_LABEL, Batch

LENGTH_STEP = 8  # trimmed texts end at a multiple of this, so that few lengths occur
REASON_BYTES = 240  # of the words about a sample that cannot be used
NO_SAMPLE = NO_ANSWER = -1
PAGE_BYTES = 4096


@dataclass(frozen=True)
class Layout:
    """The most that a micro-batch holds; `image_size` 0 leaves no place for images."""

    size: int  # samples
    image_size: int  # pixels along each side of a square; images of other shapes have no more pixels
    text_length: int  # tokens

    @property
    def columns(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and type of each array of a slot."""
        B, T, S = self.size, self.text_length, self.image_size
        texts = {name: ((B, T), "i8") for name in ("text_ids", "masked_ids", "masked_labels")}
        ids = {
            name: ((B,), "i8")
            for name in (
                "text_lengths",
                "prompt_lengths",
                "prefix_lengths",
                "image_ids",
                "caption_ids",
                "places",
                "bad_samples",
            )
        }
        flags = {name: ((B,), "?") for name in ("has_image", "has_text")}
        # Pixels lie in the order of the decoder, H, W, C: the trainer's view exchanges axes, no byte moves.
        return (
            texts
            | ids
            | {"draws": ((B, 2), "f8"), "reasons": ((B,), f"S{REASON_BYTES}")}
            | {"answer_ids": ((B, MAX_TARGETS), "i8"), "answer_scores": ((B, MAX_TARGETS), "f4")}
            | flags
            | {"image_sides": ((2,), "i8"), "images": ((B * S * S * 3,), "u1")}
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of a slot, whole pages."""
        total = sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in self.columns.values())
        return -(-total // PAGE_BYTES) * PAGE_BYTES


class Slot:
    """The arrays of one micro-batch over `memory`, which is shared or the process's own."""

    def __init__(self, layout: Layout, memory: memoryview | None = None) -> None:
        self.layout = layout
        memory = memoryview(bytearray(layout.num_bytes)) if memory is None else memory
        self._arrays, start = {}, 0
        for name, (shape, kind) in layout.columns.items():
            array = np.frombuffer(memory, kind, int(np.prod(shape)), start).reshape(shape)
            self._arrays[name], start = array, start + array.nbytes

    def fill(self, places: np.ndarray, sides: tuple[int, int] | None = None) -> "Slot":
        """Make every place empty; `places` are their numbers in the run, `sides` height and width of the images."""
        arrays, square = self._arrays, (self.layout.image_size,) * 2
        arrays["image_sides"][:] = sides if sides and self.layout.image_size else square
        arrays["places"][:] = places
        arrays["text_ids"][:] = arrays["masked_ids"][:] = Tokenizer.pad_id
        arrays["masked_labels"][:] = IGNORED_LABEL
        arrays["text_lengths"][:] = arrays["draws"][:] = arrays["answer_scores"][:] = 0
        arrays["answer_ids"][:] = NO_ANSWER
        arrays["prompt_lengths"][:] = arrays["prefix_lengths"][:] = 1
        arrays["has_image"][:] = arrays["has_text"][:] = False
        arrays["bad_samples"][:] = NO_SAMPLE
        # No two empty places are equal to each other, nor to any sample: real ids are never negative.
        arrays["image_ids"][:] = arrays["caption_ids"][:] = -1 - places
        return self

    def put(self, row: int, sample: Sample | BadSample | None) -> None:
        """Lay a sample into `row`; what is no Sample leaves it empty."""
        arrays = self._arrays
        image_HWC = self.images_BHWC[row]
        if not isinstance(sample, Sample) or sample.image_CHW is None:
            image_HWC[:] = 0
        else:
            pixels_HWC = sample.image_CHW.permute(1, 2, 0).numpy()
            if not np.may_share_memory(pixels_HWC, image_HWC):  # else the resize wrote it here
                image_HWC[:] = pixels_HWC
        if isinstance(sample, BadSample):
            arrays["bad_samples"][row] = sample.sample
            arrays["reasons"][row] = sample.reason.encode(errors="backslashreplace")[:REASON_BYTES]
        if not isinstance(sample, Sample):
            return
        count = len(sample.ids_T)
        arrays["text_ids"][row, :count] = sample.ids_T
        arrays["masked_ids"][row, :count] = sample.masked_ids_T
        arrays["masked_labels"][row, :count] = sample.masked_labels_T
        arrays["text_lengths"][row], arrays["draws"][row] = count, sample.draws_2
        arrays["prompt_lengths"][row] = sample.prompt_length
        arrays["prefix_lengths"][row] = sample.prefix_length
        for place, (number, score) in enumerate(sample.targets):
            arrays["answer_ids"][row, place], arrays["answer_scores"][row, place] = number, score
        if sample.image_id is not None:
            arrays["has_image"][row], arrays["image_ids"][row] = True, sample.image_id
        if sample.caption_id is not None:
            arrays["has_text"][row], arrays["caption_ids"][row] = True, sample.caption_id

    def bad(self) -> list[BadSample]:
        """The samples of this micro-batch that cannot be used."""
        numbers, reasons = self._arrays["bad_samples"], self._arrays["reasons"]
        return [
            BadSample(int(numbers[row]), reasons[row].decode(errors="ignore"))
            for row in np.flatnonzero(numbers != NO_SAMPLE)
        ]

    def batch(self, images_BHWC: np.ndarray | None = None, *, trim: bool) -> Batch:
        """The micro-batch: records copied, images the given ones or this slot's own, not copied.

        Texts are as long as the longest of them, rounded up to a multiple of LENGTH_STEP; without `trim`
        they are as long as the layout says.
        """
        arrays = self._arrays
        images_BHWC = self.images_BHWC if images_BHWC is None else images_BHWC
        length = self._length() if trim else self.layout.text_length
        texts = [arrays[name][:, :length] for name in ("text_ids", "masked_ids", "masked_labels")]
        names = (
            "text_lengths",
            "prompt_lengths",
            "prefix_lengths",
            "has_image",
            "has_text",
            "image_ids",
            "caption_ids",
            "draws",
            "places",
            "answer_ids",
            "answer_scores",
        )
        rest = (torch.from_numpy(array.copy()) for array in [*texts, *(arrays[name] for name in names)])
        return Batch(torch.from_numpy(images_BHWC).permute(0, 3, 1, 2), *rest)

    @property
    def images_BHWC(self) -> np.ndarray:
        """The pixels, uint8 and of the shape of this micro-batch, over the slot's memory."""
        height, width = self._arrays["image_sides"].tolist()
        size = self.layout.size
        return self._arrays["images"][: size * height * width * 3].reshape(size, height, width, 3)

    def _length(self) -> int:
        longest = max(int(self._arrays["text_lengths"].max()), 1)
        return min(-(-longest // LENGTH_STEP) * LENGTH_STEP, self.layout.text_length)


def collate(samples: Sequence[Sample | BadSample | None], places: np.ndarray, layout: Layout, *, trim: bool) -> Batch:
    """The samples at `places` as a batch with memory of its own."""
    slot = Slot(layout).fill(places)
    for row, sample in enumerate(samples):
        slot.put(row, sample)
    return slot.batch(trim=trim)
