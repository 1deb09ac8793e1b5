"""The sets of data.train, opened: one, or a blend of several by weight."""

import hashlib
import json
import logging
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from mmtrain.config.schema import DataConfig
from mmtrain.data.buckets import buckets_of, grids_within
from mmtrain.data.faults import DataError, Fault
from mmtrain.data.mixture import EMPTY, Order
from mmtrain.data.order import Shuffle, derangement
from mmtrain.data.places import Access
from mmtrain.data.question_schema import Question, parse_questions
from mmtrain.data.questions import Asking
from mmtrain.data.samples import BadSample, Draft, Look, SampleReader
from mmtrain.data.shards import open_shards
from mmtrain.data.slot import Slot
from mmtrain.data.table import SampleError, SampleTable
from mmtrain.data.tokenizer import NUM_CHECKED_CAPTIONS, Tokenizer

LOG = logging.getLogger("mmtrain.data")
KNOB = "data.train"


@dataclass(frozen=True)
class OpenSet:
    """One set and what of its samples is read."""

    table: SampleTable
    weight: float | None
    modality: str


class Sets:
    """All samples of data.train by number, set after set; DataError where one cannot be opened."""

    def __init__(self, data: DataConfig) -> None:
        weights = [part.weight for part in data.sets]
        if None in weights and any(weight is not None for weight in weights):
            raise DataError(f"{KNOB} gives some of its {len(weights)} sets a weight; give all of them one, or none")
        access = Access(data)
        self.parts = [
            OpenSet(SampleTable(open_shards(part.shards, access, KNOB), access), part.weight, part.modality)
            for part in data.sets
        ]
        if not self.parts:
            raise DataError(f"{KNOB} names no place; give it a folder of shards, a tar file or a pattern")
        for part in self.parts:
            part.table.shards.refuse_replaced()
        self._starts = [0, *accumulate(len(part.table) for part in self.parts)]
        self.faults: list[Fault] = [fault for part in self.parts for fault in part.table.faults]
        self.num_lost = sum(part.table.shards.num_lost for part in self.parts)

    @property
    def digest(self) -> str:
        """Tells data apart: other sets, or the same with other weights or modalities, give another one."""
        if len(self.parts) == 1:
            return self.parts[0].table.digest
        said = [(part.table.digest, part.weight, part.modality) for part in self.parts]
        return hashlib.blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()

    def order(self, data: DataConfig, global_batch_size: int, seed: int, patches_along_side: int) -> Order:
        """Which sample stands at which place of the run; the model's square has so many patches along each side."""
        shuffle = Shuffle(seed, data.chunk_samples, data.window_chunks)
        weights = [part.weight for part in self.parts]
        sizes, buckets = [len(part.table) for part in self.parts], None
        if data.max_aspect > 1:
            grids, images = grids_within(patches_along_side, data.max_aspect), self.parts[0].table.sizes()
            buckets = buckets_of(images, grids, global_batch_size, seed=seed, tail=data.tail)
            LOG.info("%s: %s", KNOB, buckets.described())
        said = weights if weights[0] else None
        return Order(sizes, global_batch_size, shuffle, weights=said, tail=data.tail, buckets=buckets)

    def first_captions(self) -> list[str]:
        """Some captions of each set that has any, to try a tokenizer with; samples without one are passed over."""
        return [caption for part in self.parts if part.modality != "image" for caption in first_captions(part.table)]

    def first_questions(self) -> list[Question]:
        """Those of the first samples of each set."""
        return [question for part in self.parts for question in first_questions(part.table)]

    def place(self, sample: int) -> tuple[int, int]:
        """Which set a sample belongs to, and its number in it."""
        number = bisect_right(self._starts, sample) - 1
        return number, sample - self._starts[number]

    def name(self, sample: int) -> str:
        """Shard and key of a sample."""
        number, own = self.place(sample)
        return ": ".join(part for part in self.parts[number].table.name(own) if part)

    def fault(self, bad: BadSample) -> Fault:
        """A fault that names a bad sample, whose number counts over all sets."""
        number, own = self.place(bad.sample)
        return self.parts[number].table.fault(own, bad.reason)

    def __len__(self) -> int:
        return self._starts[-1]

    def start(self, number: int) -> int:
        """Number of the first sample of a set."""
        return self._starts[number]


class SetReader:
    """Reads the samples of all sets by number."""

    def __init__(
        self,
        sets: Sets,
        tokenizer: Tokenizer,
        *,
        seed: int,
        look: Look,
        max_text_length: int,
        mask_share: float,
        shuffle_pairs: bool = False,
        draws_captions: bool = False,
        prompt: str = "",
        asking: Asking | None = None,
    ) -> None:
        self._sets = sets
        self._readers = [
            SampleReader(
                part.table,
                tokenizer,
                seed,
                look,
                max_text_length,
                mask_share,
                modality=part.modality,
                first=sets.start(number),
                image_of=_broken_pairs(part, seed) if shuffle_pairs else None,
                draws_captions=draws_captions,
                prompt=prompt,
                asking=asking,
            )
            for number, part in enumerate(sets.parts)
        ]

    def read(self, samples: np.ndarray, epochs: np.ndarray, slot: Slot, mark: Callable[[int], None]) -> None:
        """Fill the rows of a slot with samples as they are in the epochs of their sets; EMPTY leaves a row empty.

        First all reading and all words, then all pixels: each goes faster when the other does not empty the caches.
        """
        drafts = [
            self._draft(sample, epoch, mark) for sample, epoch in zip(samples.tolist(), epochs.tolist(), strict=True)
        ]
        images_BHWC = slot.images_BHWC
        for row, (number, draft) in enumerate(drafts):
            if isinstance(draft, Draft):
                mark(draft.number + self._sets.start(number))
                draft = self._readers[number].finish(draft, images_BHWC[row])
            if isinstance(draft, BadSample):
                draft = BadSample(draft.sample + self._sets.start(number), draft.reason)
            slot.put(row, draft)

    def _draft(self, sample: int, epoch: int, mark: Callable[[int], None]) -> tuple[int, Draft | BadSample | None]:
        if sample == EMPTY:
            return 0, None
        mark(sample)
        number, own = self._sets.place(sample)
        return number, self._readers[number].draft(own, epoch)


def _broken_pairs(part: OpenSet, seed: int) -> np.ndarray | None:
    return derangement(len(part.table), seed) if part.modality == "image_text" else None


def first_captions(table: SampleTable) -> list[str]:
    """The first captions of a set, as many as a tokenizer is checked with; samples without one are passed over."""
    captions: list[str] = []
    for sample in range(min(len(table), NUM_CHECKED_CAPTIONS)):
        try:
            captions.append(table.caption(sample))
        except SampleError:
            continue  # counted and logged when the order comes to it
    return captions


def first_questions(table: SampleTable) -> list[Question]:
    """The questions about the first samples of a set; those that cannot be read are passed over."""
    questions: list[Question] = []
    for sample in range(min(len(table), NUM_CHECKED_CAPTIONS)):
        try:
            questions += parse_questions(table.metadata(sample))
        except SampleError:
            continue
    return questions
