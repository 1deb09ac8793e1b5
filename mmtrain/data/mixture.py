"""Which sample stands at which place of a run, over one set or a blend of several: pure functions. No torch.

Global batch g is places [g G, (g+1) G) of the run. Micro-batch k of a global batch is its k-th run of
dp x micro_batch_size places, of which data-parallel rank r takes the r-th part.

One set: epoch 0, epoch 1, ... each of whole global batches; what is left over at an epoch's end is
dropped (other samples in each epoch) or padded up with empty places. Where its samples are in buckets by
the shape of their image, every global batch is of one bucket, and each has what is left over of its own.
A blend: every set runs through its own epochs without a gap, and of any run of places each set has its
share, to within one sample per set.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from mmtrain.data.buckets import Buckets, Grid, one_bucket
from mmtrain.data.draws import Purpose, generator
from mmtrain.data.faults import DataError
from mmtrain.data.order import SetOrder, Shuffle

EMPTY = -1  # the sample of a place that stays empty
WEIGHT_UNITS = 2**20  # weights are kept as whole parts of this, so that shares are exact at any place
BLEND_BLOCK = 256  # places among which the sets' samples are mixed


@dataclass(frozen=True)
class Slots:
    """The places of one micro-batch on one rank."""

    epochs: np.ndarray  # int64: each sample's epoch of its own set
    samples: np.ndarray  # int64: numbers of the samples, counted over all shards of all sets; EMPTY for none
    places: np.ndarray  # int64: places counted from the run's start


class Order:
    """Which samples stand at the places of a run over sets of `sizes` samples.

    `weights`: each set's share of the samples drawn, None for their sizes. `buckets` of one set's samples, None for
    one that holds all. DataError where all sets together are smaller than one global batch.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        global_batch_size: int,
        shuffle: Shuffle,
        *,
        weights: Sequence[float] | None = None,
        tail: str = "drop",
        buckets: Buckets | None = None,
    ) -> None:
        if not (buckets is None or len(sizes) == 1):
            raise RuntimeError("buckets are of one set")
        self.num_samples, self.global_batch_size, self.seed = sum(sizes), global_batch_size, shuffle.seed
        self.sizes, self.shuffle, self.tail = tuple(sizes), shuffle, tail
        # Of a blend: as many batches as its sets hold, none of them with a shape of its own.
        self.buckets = buckets or one_bucket(self.num_samples, global_batch_size, shuffle.seed, tail)
        orders = sizes if buckets is None else [bucket.num_samples for bucket in buckets.buckets]
        self._orders = [SetOrder(size, replace(shuffle, set_number=number)) for number, size in enumerate(orders)]
        self.parts = whole_parts(weights or sizes)
        if self.num_samples < global_batch_size and tail == "drop":
            raise DataError(
                f"data.train holds {self.num_samples} samples, fewer than one global batch; set "
                f"train.global_batch_size ({global_batch_size}) to {self.num_samples} or less, give it more shards, "
                "or set data.tail=pad; `mmdata verify` tells why shards hold fewer samples than expected"
            )
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.batches_per_epoch = self.buckets.batches_per_epoch
        self.num_dropped = sum(self.buckets.num_dropped) if len(sizes) == 1 else 0  # of every epoch
        self._filled = lru_cache(maxsize=4)(self._fill)

    def batch(self, step: int) -> np.ndarray:
        """Sample numbers of the global batch of `step`, int64 [global_batch_size]; EMPTY where a place is."""
        return self._filled(step)[1]

    def grid(self, step: int) -> Grid | None:
        """Patches down and across of every image of the global batch of `step`; None for the model's square."""
        bucket, _ = self.buckets.at(*divmod(step, self.batches_per_epoch))
        return self.buckets.buckets[bucket].grid

    def slots(self, step: int, micro_batch: int, *, dp: int, dp_rank: int, micro_batch_size: int) -> Slots:
        """What rank `dp_rank` of `dp` reads in one micro-batch of the global batch of `step`."""
        start = (micro_batch * dp + dp_rank) * micro_batch_size
        stop = start + micro_batch_size
        if stop > self.global_batch_size:
            raise RuntimeError(f"places {start}..{stop} of a batch of {self.global_batch_size}")
        epochs, samples = self._filled(step)
        places = step * self.global_batch_size + np.arange(start, stop)
        return Slots(epochs[start:stop], samples[start:stop], places)

    def dropped(self, epoch: int) -> np.ndarray:
        """The samples that `epoch` leaves out, int64 [num_dropped]."""
        left_over = [
            bucket.named(order.epoch(epoch).span(bucket.num_samples - count, bucket.num_samples))
            for bucket, order, count in zip(self.buckets.buckets, self._orders, self.buckets.num_dropped, strict=True)
        ]
        return np.concatenate(left_over)

    def _fill(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        return self._of_one_set(step) if len(self.sizes) == 1 else self._of_blend(step)

    def _of_one_set(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        size = self.global_batch_size
        epoch, batch = divmod(step, self.batches_per_epoch)
        number, before = self.buckets.at(epoch, batch)
        bucket, start = self.buckets.buckets[number], before * size
        stop = min(start + size, bucket.num_samples)
        samples = np.full(size, EMPTY, np.int64)
        samples[: stop - start] = bucket.named(self._orders[number].epoch(epoch).span(start, stop))
        return np.full(size, epoch, np.int64), samples

    def _of_blend(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        start = step * self.global_batch_size
        stop = start + self.global_batch_size
        sets = np.concatenate(
            [set_order(self.parts, self.seed, block) for block in range(start // BLEND_BLOCK, -(-stop // BLEND_BLOCK))]
        )
        skipped = start % BLEND_BLOCK
        before = shares(self.parts, start - skipped) + np.bincount(sets[:skipped], minlength=len(self.sizes))
        sets = sets[skipped : skipped + self.global_batch_size]
        epochs, samples = np.empty(len(sets), np.int64), np.empty(len(sets), np.int64)
        for number, order in enumerate(self._orders):
            here, first = sets == number, int(before[number])
            epochs[here], own = order.span(first, first + int(here.sum()))
            samples[here] = own + self._starts[number]
        return epochs, samples


def whole_parts(weights: Sequence[float]) -> tuple[int, ...]:
    """The weights as whole numbers that add up to WEIGHT_UNITS, none of them 0."""
    total = sum(weights)
    ends = [round(WEIGHT_UNITS * sum(weights[:number]) / total) for number in range(len(weights) + 1)]
    parts = [end - start for start, end in zip(ends[:-1], ends[1:], strict=True)]
    for number in [number for number, part in enumerate(parts) if part == 0]:
        parts[parts.index(max(parts))] -= 1
        parts[number] = 1
    return tuple(parts)


def shares(parts: Sequence[int], num_places: int) -> np.ndarray:
    """How many of the first `num_places` places belong to each set, int64; never falls as places are added.

    The first set takes its share of all, rounded down, the next its share of what is left, and so on: each
    count rises by 0 or 1 with every place, and they add up to `num_places`.
    """
    counts, left, units = [], num_places, sum(parts)
    for part in parts[:-1]:
        counts.append(left * part // units)
        left, units = left - counts[-1], units - part
    return np.array([*counts, left], np.int64)


@lru_cache(maxsize=256)
def set_order(parts: tuple[int, ...], seed: int, block: int) -> np.ndarray:
    """Which set each place of a block of BLEND_BLOCK places belongs to, int64."""
    counts = shares(parts, (block + 1) * BLEND_BLOCK) - shares(parts, block * BLEND_BLOCK)
    sets = np.repeat(np.arange(len(parts)), counts)
    return generator(seed, Purpose.BLEND, sample=block).permutation(sets)
