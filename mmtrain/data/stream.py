"""The training stream: this rank's micro-batches of every step, the same however many ranks and workers read."""

import hashlib
from collections.abc import Iterator, Sequence
from time import perf_counter

from mmtrain.config.schema import DataConfig, MlmConfig, ModelConfig, TrainConfig
from mmtrain.data.collate import collate
from mmtrain.data.faults import NUM_READ_BEFORE_CHECK, DataError, Fault, FaultTally
from mmtrain.data.index import ShardIndex, open_sources
from mmtrain.data.order import Order, derangement
from mmtrain.data.samples import Sample, SampleReader
from mmtrain.data.table import SampleError, SampleTable
from mmtrain.data.tokenizer import NUM_CHECKED_CAPTIONS, Tokenizer, check_tokenizer
from mmtrain.data.workers import read_ahead
from mmtrain.records import Batch

KNOB = "data.train"


class Stream:
    """Endless global batches of data.train; DataError for a set, tokenizer or share of bad samples that cannot be used.

    `sources` and `tokenizer` spare opening what the caller has open; `trim` False gives every text `max_text_length`.
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
        sources: Sequence[ShardIndex] | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self._data, self._model, self._train = data, model, train
        self._dp, self._dp_rank, self._trim = dp, dp_rank, trim
        self.num_micro_batches = train.global_batch_size // (dp * train.micro_batch_size)
        assert self.num_micro_batches * dp * train.micro_batch_size == train.global_batch_size, "an uneven global batch"
        self._table = SampleTable(sources or open_sources(data.train, KNOB))
        self.tokenizer = tokenizer or open_tokenizer(data)
        check_tokenizer(self.tokenizer, first_captions(self._table), data.max_unknown_share)
        self.order = Order(len(self._table), train.global_batch_size, seed)
        self._reader = self._sample_reader(mlm, seed)
        self._tally = FaultTally(KNOB, data.max_bad_share)
        # What indexing found belongs to no rank, so one of them counts it.
        self._tally.add(self._table.faults if dp_rank == 0 else [], 0)
        self._step, self._delivered, self._waited = 0, "", 0.0
        self._ahead: Iterator[tuple[Batch, list[Fault]]] | None = None

    def _sample_reader(self, mlm: MlmConfig, seed: int) -> SampleReader:
        data, model = self._data, self._model
        return SampleReader(
            self._table,
            self.tokenizer,
            seed,
            model.image_size,
            model.max_text_length,
            mlm.mask_share,
            min_crop_share=data.min_crop_share,
            flip=data.flip,
            image_of=derangement(len(self._table), seed) if data.shuffle_pairs else None,
        )

    def take(self, num_micro_batches: int) -> list[Batch]:
        """This rank's micro-batches of the next global batch, on the host; the whole of it, or an assertion fails."""
        assert num_micro_batches == self.num_micro_batches, (
            f"{num_micro_batches} asked, {self.num_micro_batches} a step"
        )
        started = perf_counter()
        if self._ahead is None:
            self._ahead = self._micro_batches(self._step * self.num_micro_batches)
        batches = []
        for _ in range(num_micro_batches):
            batch, faults = next(self._ahead)
            self._tally.add(faults, len(batch.places_B))
            batches.append(batch)
        self._waited += perf_counter() - started
        self._delivered = _chain(self._delivered, self.order.batch(self._step).tobytes())
        self._step += 1
        at_end_of_epoch = self._step % self.order.batches_per_epoch == 0
        self._tally.check(least_read=1 if at_end_of_epoch else NUM_READ_BEFORE_CHECK)
        return batches

    def _micro_batches(self, first: int) -> Iterator[tuple[Batch, list[Fault]]]:
        workers = self._data.num_workers
        if workers:
            return read_ahead(self._read, first, num_workers=workers, per_step=self.num_micro_batches)
        return (self._read(number) for number in _count(first))

    def _read(self, number: int) -> tuple[Batch, list[Fault]]:
        """This rank's micro-batch of that number, counted from the run's start, and what is missing from it."""
        step, micro_batch = divmod(number, self.num_micro_batches)
        size = self._train.micro_batch_size
        slots = self.order.slots(step, micro_batch, dp=self._dp, dp_rank=self._dp_rank, micro_batch_size=size)
        samples = [self._reader.read(sample, slots.epoch) for sample in slots.samples.tolist()]
        shape = {"image_size": self._model.image_size, "max_text_length": self._model.max_text_length}
        batch = collate(samples, slots.places, **shape, trim=self._trim)
        return batch, [sample for sample in samples if not isinstance(sample, Sample)]

    def state(self) -> dict[str, int | str]:
        """What goes on exactly here, on any number of ranks and workers; `order_hash` covers every sample delivered."""
        return {
            "step": self._step,
            "order_hash": self._delivered,
            "seed": self.order.seed,
            "global_batch_size": self.order.global_batch_size,
            "num_samples": self.order.num_samples,
            "set_digest": self._table.digest,
        }

    def restore(self, state: dict[str, int | str]) -> None:
        """Go on with the step that `state` was taken before; DataError when the order would not be the same."""
        knobs = {
            "seed": "seed",
            "global_batch_size": "train.global_batch_size",
            "num_samples": KNOB,
            "set_digest": KNOB,
        }
        for key, knob in knobs.items():
            if state[key] != (here := self.state()[key]):
                raise DataError(
                    f"the run was saved with {key} {state[key]}, but here it is {here}: the order of the "
                    f"samples would be another one; set {knob} as it was, or start a new run_dir"
                )
        self.close()
        self._step, self._delivered = int(state["step"]), str(state["order_hash"])

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
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None


def open_tokenizer(data: DataConfig) -> Tokenizer:
    """The tokenizer of data.tokenizer; DataError where none is named or it is not one."""
    if data.tokenizer is None:
        raise DataError("data.tokenizer is not set; give it the .model file that `mmdata tokenizer` wrote")
    return Tokenizer(data.tokenizer)


def first_captions(table: SampleTable) -> list[str]:
    """The first captions of a set, as many as a tokenizer is checked with; samples without one are passed over."""
    captions = []
    for sample in range(min(len(table), NUM_CHECKED_CAPTIONS)):
        try:
            captions.append(table.caption(sample))
        except SampleError:
            continue  # counted and logged when the order comes to it
    return captions


def _chain(before: str, content: bytes) -> str:
    return hashlib.blake2b(before.encode() + content, digest_size=16).hexdigest()


def _count(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1
