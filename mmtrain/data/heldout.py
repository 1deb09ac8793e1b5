"""The held-out split: the first pairs of it, in order, the same at every evaluation."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from mmtrain.config.schema import DataConfig, MlmConfig, ModelConfig
from mmtrain.data.answer_ids import Answered, image_ids, question_ids
from mmtrain.data.faults import DataError, FaultTally
from mmtrain.data.places import Access
from mmtrain.data.question_schema import Question, parse_questions
from mmtrain.data.questions import Asking
from mmtrain.data.samples import BadSample, Draft, Look, Sample, SampleReader, bad_sample
from mmtrain.data.shards import open_shards
from mmtrain.data.slot import Layout, collate
from mmtrain.data.table import SampleError, SampleTable, as_captions
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.data.twins import Twin, as_twin
from mmtrain.records import Batch

KNOB = "data.heldout"
NUM_IMAGES_TRIED = 16  # that are decoded before a run begins; all others when they are scored
NUM_REMEMBERED = 1024  # decoded samples, when they are met again and again in other pairs


class HeldOut:
    """The first `num_pairs` samples of data.heldout; all of them where there are fewer. No augmentation.

    With `asking`, the first `num_pairs` questions about its samples, each in place of a caption: what is said below of
    a sample holds of a question. Without `needs_images` nothing is decoded for the batches: images_BCHW is
    [B, 3, 0, 0], and all else is the same.
    """

    def __init__(
        self,
        data: DataConfig,
        model: ModelConfig,
        mlm: MlmConfig,
        tokenizer: Tokenizer,
        *,
        seed: int,
        num_pairs: int,
        needs_images: bool = True,
        prompt: str = "",
        asking: Asking | None = None,
    ) -> None:
        access = Access(data)
        self._table = SampleTable(open_shards(data.heldout, access, KNOB), access)
        self._table.shards.refuse_replaced()
        self._model, self._needs_images = model, needs_images
        self.tokenizer = tokenizer
        look = Look(model.image_size, is_needed=needs_images)
        self._reader = SampleReader(
            self._table, tokenizer, seed, look, model.max_text_length, mlm.mask_share, prompt=prompt, asking=asking
        )
        self._twin_reader = replace(self._reader, caption_of=self._twin_caption)
        self._tally = FaultTally(KNOB, data.max_bad_share)
        self._tally.log(self._table.faults)
        self._tally.judge_damage(self._table.faults, self._table.shards.num_lost, len(self._table))
        self._bad: set[int] = set()  # numbers in the table of the samples that cannot be used, as far as is known
        self._numbers, self.questions = self._entries(num_pairs)
        self._length = len(self._numbers)
        self._facts = [self._parsed(number) for number in self._numbers]
        self.captions: tuple[str | None, ...] = tuple(self._caption(sample) for sample in range(self._length))
        self.twins: tuple[Twin | None, ...] = tuple(None if self.questions else as_twin(one) for one in self._facts)
        self._look_through()

    def __len__(self) -> int:
        return self._length

    def image(self, sample: int) -> torch.Tensor | None:
        """The image as the model sees it, uint8 [3, image_size, image_size]; None where the sample cannot be used."""
        read = self._read(sample)
        return read.image_CHW if isinstance(read, Sample) else None

    def metadata(self, sample: int) -> dict[str, Any]:
        """What the set says beside a sample; empty where it cannot be read."""
        return self._facts[sample]

    def references(self, sample: int) -> list[str]:
        """All captions of a sample that has one, without empty ones, which are named in the log.

        SampleError where its list of captions holds anything but texts. "captions" that are no list are the user's
        own metadata.
        """
        several = self.metadata(sample).get("captions")
        found = as_captions({"captions": several}) if isinstance(several, list) else []
        if isinstance(several, list) and len(found) < len(several):
            self._tally.log([self._table.fault(self._numbers[sample], "an empty one of its captions is no reference")])
        return found or [self.captions[sample]]

    def all_references(self) -> list[list[str] | None]:
        """The references of every sample, None for one that cannot be used; DataError where too many cannot."""
        found: list[list[str] | None] = []
        for sample, number in enumerate(self._numbers):
            try:
                found.append(None if number in self._bad else self.references(sample))
            except SampleError as error:
                self._note_bad([bad_sample(number, error)])
                found.append(None)
        if not any(found):
            self._tally.refuse_none_usable(len(self))
        self._judge()
        return found

    def answered(self, sample: int) -> Answered:
        """What an answer about a sample is about: its image, or its question about it."""
        number, image_id = self._numbers[sample], self._image_ids[sample]
        shard, key = self._table.name(number)
        identity = -1 - number if image_id is None else image_id
        if not self.questions:
            return Answered(image_ids(self.metadata(sample), shard, key, number), identity)
        question, place = self.questions[sample], sample - bisect_left(self._numbers, number)
        return Answered(question_ids(question.number, shard, key, place, number), (identity, question.text))

    @property
    def num_further_captions(self) -> int:
        """Captions that samples have beside the one that is read of each."""
        several = (one.get("captions") for one in self._facts)
        return sum(len(captions) - 1 for captions in several if isinstance(captions, list) and captions)

    def image_name(self, sample: int) -> int | str:
        """What the public servers know the image by: its number in COCO, else its key."""
        return image_ids(self.metadata(sample), *self._table.name(self._numbers[sample]), sample)[0]

    def question_name(self, sample: int) -> int | str:
        """What the public servers know the question by, else the key of its image and its number there."""
        return self.answered(sample).ids[0]

    def pictures(self, count: int) -> list[np.ndarray]:
        """The first `count` images, uint8 [3, image_size, image_size]; black where a sample cannot be used."""
        blank = torch.zeros(3, self._model.image_size, self._model.image_size, dtype=torch.uint8)
        images = (self.image(sample) for sample in range(min(count, self._length)))
        return [(blank if image is None else image).numpy() for image in images]

    def batches(
        self, batch_size: int, *, dp: int = 1, dp_rank: int = 0, trim: bool = True, twins: bool = False
    ) -> Iterator[Batch]:
        """This rank's batches; with `twins` the texts are the twin captions, and samples without one are empty.

        The split is cut as a global batch is: batch k of all ranks together is its k-th run of
        dp x batch_size samples, of which rank r has the r-th part. So what ranks gather after each batch,
        in the order of ranks, is the split in order. Every rank has as many batches of the same size; the
        last are padded with empty places. `places_B` counts from the start of the split. DataError at the
        end where too many samples could not be used.
        """
        for start in range(0, self._length, dp * batch_size):
            places = start + dp_rank * batch_size + np.arange(batch_size)
            samples = [self._read(place, twins) if place < self._length else None for place in places.tolist()]
            if not twins:
                self._note_bad(sample for sample in samples if isinstance(sample, BadSample))
            image_size = self._model.image_size * self._needs_images
            yield collate(samples, places, Layout(batch_size, image_size, self._model.max_text_length), trim=trim)
        self._judge()

    def paired(
        self, pairs: Sequence[tuple[int, int]], batch_size: int, *, dp: int = 1, dp_rank: int = 0, trim: bool = True
    ) -> Iterator[Batch]:
        """This rank's batches of made pairs, each the image of one sample with the text of another.

        Cut and padded as `batches` are; a pair is empty where either sample cannot be used.
        """
        read = lru_cache(NUM_REMEMBERED)(self._read)
        for start in range(0, len(pairs), dp * batch_size):
            places = start + dp_rank * batch_size + np.arange(batch_size)
            own = [pairs[place] if place < len(pairs) else None for place in places.tolist()]
            samples = [_paired(read(pair[0]), read(pair[1])) if pair else None for pair in own]
            image_size = self._model.image_size * self._needs_images
            yield collate(samples, places, Layout(batch_size, image_size, self._model.max_text_length), trim=trim)

    def _entries(self, most: int) -> tuple[list[int], list[Question]]:
        """Numbers of the samples of the split, and the questions about them: as many, or none where none are asked."""
        if self._reader.asking is None:
            return list(range(min(most, len(self._table)))), []
        found: list[tuple[int, Question]] = []
        for number in range(len(self._table)):
            if len(found) >= most:
                break
            try:
                found += [(number, question) for question in parse_questions(self._table.metadata(number))]
            except SampleError as error:
                self._note_bad([bad_sample(number, error)])
        if not found and self._bad:
            self._tally.refuse_none_usable(len(self._table))
        if not found:
            raise DataError(
                f"{KNOB} holds no questions; `mmdata build --vqa` takes those of VQA v2, `mmdata synth` makes some up"
            )
        return [number for number, _ in found[:most]], [question for _, question in found[:most]]

    def _read(self, sample: int, twin: bool = False) -> Sample | BadSample:
        reader = self._twin_reader if twin else self._reader
        question = self.questions[sample] if self.questions else None
        return reader.read(self._numbers[sample], question=question)

    def _look_through(self) -> None:
        """Read the texts of all samples and the images of some; DataError where the split could not be scored.

        It is used for the first time long after a run has begun, so what is wrong with it is looked for before.
        """
        num_usable = 0
        self._image_ids: list[int | None] = []
        for sample, number in enumerate(self._numbers):
            draft = self._reader.draft(number, question=self.questions[sample] if self.questions else None)
            self._image_ids.append(draft.sample_without_image.image_id if isinstance(draft, Draft) else None)
            is_tried = isinstance(draft, Draft) and (sample < NUM_IMAGES_TRIED or not num_usable)
            read = self._reader.finish(draft) if is_tried else draft
            if isinstance(read, BadSample):
                self._note_bad([read])
            else:
                num_usable += 1
        if not num_usable:
            self._tally.refuse_none_usable(len(self))
        self._judge()

    def _note_bad(self, bad: Iterable[BadSample]) -> None:
        """Log the samples that cannot be used, each once, and keep their numbers."""
        for each in bad:
            self._bad.add(each.sample)
            self._tally.log([self._table.fault(each.sample, each.reason)])

    def _judge(self) -> None:
        """DataError where too many samples cannot be used, as far as this rank has seen them."""
        self._tally.judge(len(self._bad), len({*self._numbers, *self._bad}))

    def _parsed(self, number: int) -> dict[str, Any]:
        try:
            return self._table.metadata(number)
        except SampleError:
            return {}  # named and counted when the sample is looked through

    def _caption(self, sample: int) -> str | None:
        if self.questions:
            return self.questions[sample].text
        try:
            return self._table.caption(self._numbers[sample])
        except SampleError:
            return None  # named and counted when the sample is looked through

    def _twin_caption(self, sample: int) -> str:
        twin = self.twins[sample]
        if twin is None:
            raise SampleError("has no twin caption")
        return twin.caption


def _paired(shown: Sample | BadSample, said: Sample | BadSample) -> Sample | None:
    if isinstance(shown, BadSample) or isinstance(said, BadSample):
        return None
    return replace(said, image_CHW=shown.image_CHW, image_id=shown.image_id)
