"""The training stream: this rank's micro-batches of every step, the same however many ranks and workers read."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from time import perf_counter
from typing import Any

from mmtrain.config.schema import DataConfig, MlmConfig, ModelConfig, TrainConfig
from mmtrain.data.faults import NUM_READ_BEFORE_CHECK, DataError, FaultTally
from mmtrain.data.folder_tokenizer import AnyTokenizer, tokenizer_at
from mmtrain.data.mixture import EMPTY
from mmtrain.data.questions import Asking
from mmtrain.data.samples import BadSample, Look
from mmtrain.data.sets import KNOB, SetReader, Sets
from mmtrain.data.slot import Layout, Slot
from mmtrain.data.tokenizer import check_tokenizer
from mmtrain.data.workers import Mark, Readers
from mmtrain.records import Batch

LOG = logging.getLogger("mmtrain.data")
MAX_LISTED = 1000  # samples of a dropped tail that are written to the log by name
KNOBS = {  # what makes the order what it is, and the knob that sets it
    "seed": "seed",
    "global_batch_size": "train.global_batch_size",
    "num_samples": KNOB,
    "set_digest": KNOB,
    "chunk_samples": "data.chunk_samples",
    "window_chunks": "data.window_chunks",
    "tail": "data.tail",
    "buckets": "data.max_aspect (with model.image_size and model.patch_size)",
}


class Stream:
    """Endless global batches of data.train; DataError for a set, tokenizer or share of bad samples that cannot be used.

    `tokenizer` spares opening what the caller has open; `trim` False gives every text `max_text_length`. Without
    `needs_images` nothing is decoded: images_BCHW is [B, 3, 0, 0], and all else is the same. Captions begin with
    `prompt`; with `asking` questions take their place. With data.num_workers > 0 images_BCHW lies in memory that
    readers use again once the last tensor over it is dropped.
    """

    def __init__(
        self,
        data: DataConfig,
        model: ModelConfig,
        train: TrainConfig,
        mlm: MlmConfig,
        *,
        seed: int,
        dp: int = 1,
        dp_rank: int = 0,
        trim: bool = True,
        needs_images: bool = True,
        tokenizer: AnyTokenizer | None = None,
        prompt: str = "",
        asking: Asking | None = None,
    ) -> None:
        self._num_workers, self._micro_batch_size = data.num_workers, train.micro_batch_size
        self._patch_size = model.patch_size
        self._dp, self._dp_rank, self._trim = dp, dp_rank, trim
        self.num_micro_batches = train.global_batch_size // (dp * train.micro_batch_size)
        if self.num_micro_batches * dp * train.micro_batch_size != train.global_batch_size:
            raise RuntimeError("an uneven global batch")
        self._sets = Sets(data)
        self.tokenizer = tokenizer or open_tokenizer(data)
        if asking is None:
            texts = self._sets.first_captions()
        else:
            questions = self._sets.first_questions()
            asking.refuse_unfit(questions, KNOB)
            texts = [question.text for question in questions]
        check_tokenizer(self.tokenizer, texts, data.max_unknown_share)
        self.order = self._sets.order(data, train.global_batch_size, seed, model.image_size // model.patch_size)
        look = Look(model.image_size, data.min_crop_share, data.flip, data.color_jitter, needs_images)
        self._reader = SetReader(
            self._sets,
            self.tokenizer,
            seed=seed,
            look=look,
            max_text_length=model.max_text_length,
            mask_share=mlm.mask_share,
            shuffle_pairs=data.shuffle_pairs,
            draws_captions=data.caption == "any",
            prompt=prompt,
            asking=asking,
        )
        self._layout = Layout(train.micro_batch_size, model.image_size * needs_images, model.max_text_length)
        self._tally = FaultTally(KNOB, data.max_bad_share)
        # What indexing found belongs to no rank, so one of them counts it.
        self._tally.add(self._sets.faults if dp_rank == 0 else [], 0)
        self._num_bad_before = self._tally.num_bad
        self._tally.judge_damage(self._sets.faults, self._sets.num_lost, len(self._sets))
        self._step, self._delivered, self._waited = 0, "", 0.0
        self._least_read = 1  # samples of which a share is judged at the end of an epoch or of the run
        self._left_out: set[int] = set()  # global batches, by their number in the order
        self._readers: Readers | None = None
        self._ahead: Iterator[tuple[Batch, list[BadSample]]] | None = None

    def take(self, num_micro_batches: int) -> list[Batch]:
        """This rank's micro-batches of the next global batch, on the host; the whole of it, or an assertion fails."""
        if num_micro_batches != self.num_micro_batches:
            raise RuntimeError(f"{num_micro_batches} asked, {self.num_micro_batches} a step")
        started = perf_counter()
        if self._ahead is None:
            self._ahead = self._micro_batches(self._step * self.num_micro_batches)
        batches = []
        for _ in range(num_micro_batches):
            batch, bad = next(self._ahead)
            num_read = int((batch.has_image_B | batch.has_text_B).sum()) + len(bad)  # without places that stay empty
            self._tally.add([self._sets.fault(each) for each in bad], num_read)
            batches.append(batch)
        self._waited += perf_counter() - started
        number = self._number(self._step)
        self._delivered = _chain(self._delivered, self.order.batch(number).tobytes())
        self._step += 1
        epoch, next_epoch = (each // self.order.batches_per_epoch for each in (number, self._number(self._step)))
        at_end_of_epoch = next_epoch > epoch
        if at_end_of_epoch and self._dp_rank == 0:
            self._list_tail(epoch)
        self._tally.check(least_read=self._least_read if at_end_of_epoch else NUM_READ_BEFORE_CHECK)
        return batches

    def check_at_end(self, summed: Callable[[list[float]], list[float]]) -> None:
        """DataError where too many of all samples that the run has read were bad, or all; every rank must call it.

        `summed` adds numbers up over the data-parallel ranks. A run that only went on may have read few, of which a
        share says little.
        """
        own = [float(self._tally.num_bad - self._num_bad_before), float(self._tally.num_read)]
        num_bad, num_read = (int(total) for total in summed(own))
        if num_read and num_bad == num_read:
            self._tally.refuse_none_usable(num_read)
        self._tally.judge(num_bad, num_read, self._least_read)

    def _micro_batches(self, first: int) -> Iterator[tuple[Batch, list[BadSample]]]:
        if not self._num_workers:
            return self._read_here(first)
        self._readers = Readers(
            self._read,
            self._layout,
            first=first,
            num_workers=self._num_workers,
            per_step=self.num_micro_batches,
            name_of=self._sets.name,
        )
        return self._readers.batches(trim=self._trim)

    def _read_here(self, first: int) -> Iterator[tuple[Batch, list[BadSample]]]:
        for number in count(first):
            slot = Slot(self._layout)
            self._read(number, slot, lambda sample: None)
            yield slot.batch(trim=self._trim), slot.bad()

    def _read(self, number: int, slot: Slot, mark: Mark) -> None:
        """Fill a slot with this rank's micro-batch of that number, counted from the run's start."""
        step, micro_batch = divmod(number, self.num_micro_batches)
        where = {"dp": self._dp, "dp_rank": self._dp_rank, "micro_batch_size": self._micro_batch_size}
        batch = self._number(step)
        slots, grid = self.order.slots(batch, micro_batch, **where), self.order.grid(batch)
        sides = grid and (grid[0] * self._patch_size, grid[1] * self._patch_size)
        self._reader.read(slots.samples, slots.epochs, slot.fill(slots.places, sides), mark)

    def _list_tail(self, epoch: int) -> None:
        """Say which samples `epoch` did not deliver, or how many places stayed empty at its end."""
        if self.order.num_dropped:
            dropped = self.order.dropped(epoch)
            names = [self._sets.name(sample) for sample in dropped[:MAX_LISTED].tolist()]
            more = f" and {len(dropped) - MAX_LISTED} more" if len(dropped) > MAX_LISTED else ""
            LOG.info("epoch %d: %d samples dropped (data.tail): %s%s", epoch, len(dropped), ", ".join(names), more)
        elif num_empty := int((self.order.batch(self._number(self._step - 1)) == EMPTY).sum()):
            LOG.info("epoch %d: %d places padded at its end (data.tail)", epoch, num_empty)

    def state(self) -> dict[str, Any]:
        """What goes on exactly here, on any number of ranks and workers; `order_hash` covers every sample delivered."""
        order = self.order
        return {
            "step": self._step,
            "order_hash": self._delivered,
            "seed": order.seed,
            "global_batch_size": order.global_batch_size,
            "num_samples": order.num_samples,
            "set_digest": self._sets.digest,
            "chunk_samples": order.shuffle.chunk_samples,
            "window_chunks": order.shuffle.window_chunks,
            "tail": order.tail,
            "buckets": order.buckets.digest,
            "left_out": sorted(self._left_out),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the step that `state` was taken before; DataError when the order would not be the same."""
        here = self.state()
        for key, knob in KNOBS.items():
            if state.get(key) != here[key]:
                raise DataError(
                    f"the run was saved with {key} {state.get(key)}, but here it is {here[key]}: the order of the "
                    f"samples would be another one; set {knob} as it was, or start a new run_dir"
                )
        self.close()
        self._step, self._delivered = int(state["step"]), str(state["order_hash"])
        self._least_read = NUM_READ_BEFORE_CHECK if self._step else 1
        # What was left out since then stays left out.
        self._left_out |= set(state.get("left_out", ()))

    def leave_out(self, places: range) -> None:
        """Never give the global batch at these places of the run, which is still to come; those after it move up."""
        number = places.start // self.order.global_batch_size
        if number < self._number(self._step):
            raise RuntimeError(f"batch {number} has been given already")
        self.close()
        self._left_out.add(number)

    def _number(self, step: int) -> int:
        """Which global batch of the order a step gets: the same as the step, until some are left out."""
        for left_out in sorted(self._left_out):
            step += left_out <= step
        return step

    def last_places(self) -> range:
        """The places of the run whose samples take() gave last, over all ranks."""
        first = self._number(self._step - 1) * self.order.global_batch_size
        return range(first, first + self.order.global_batch_size)

    def names(self, places: Sequence[int]) -> list[str]:
        """Shard and key of the samples at these places of the run."""
        found = (divmod(place, self.order.global_batch_size) for place in places)
        samples = [int(self.order.batch(step)[number]) for step, number in found]
        return ["none" if sample == EMPTY else self._sets.name(sample) for sample in samples]

    @property
    def wait_seconds(self) -> float:
        """Seconds that take() has waited for data since this was last read."""
        waited, self._waited = self._waited, 0.0
        return waited

    @property
    def num_bad(self) -> int:
        """Samples of this rank that could not be used, and on rank 0 what indexing found."""
        return self._tally.num_bad

    @property
    def num_read(self) -> int:
        """Samples that this rank has been given, bad ones too."""
        return self._tally.num_read

    def close(self) -> None:
        """End the reader processes; the next take() starts new ones."""
        if self._readers is not None:
            self._readers.close()
        self._readers = self._ahead = None


def open_tokenizer(data: DataConfig) -> AnyTokenizer:
    """The tokenizer of data.tokenizer; DataError where none is named or it is not one."""
    if data.tokenizer is None:
        raise DataError("data.tokenizer is not set; give it the .model file that `mmdata tokenizer` wrote")
    return tokenizer_at(data.tokenizer)


def _chain(before: str, content: bytes) -> str:
    return hashlib.blake2b(before.encode() + content, digest_size=16).hexdigest()
