"""Aspect-ratio buckets: images of like shape stand in one global batch and keep their shape. Pure functions. No torch.

A bucket is a grid of patches, none of which has more patches than the square of model.image_size: whatever its bucket,
a micro-batch has at most train.micro_batch_size times as many. Every sample belongs to one bucket by the shape of its
image, every global batch is of one bucket, and which bucket's turn it is follows from the seed and the epoch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from mmtrain.data.draws import Purpose, generator

Grid = tuple[int, int]  # patches down and across
ALL: None = None  # the members of a bucket that holds every sample


def grids_within(patches_along_side: int, max_aspect: float) -> tuple[Grid, ...]:
    """All grids of no more patches than the square, as wide as that allows, up to `max_aspect`; from tall to wide."""
    budget, wide = patches_along_side**2, []
    for height in range(patches_along_side, 0, -1):
        width = budget // height
        if width > max_aspect * height:
            break
        wide.append((height, width))
    return (*((width, height) for height, width in reversed(wide[1:])), *wide)


def nearest_grids(sizes: np.ndarray, grids: Sequence[Grid]) -> np.ndarray:
    """For each width and height in `sizes` [samples, 2] the number of the grid of the nearest shape, uint8 [samples].

    Nearest by the ratio of the ratios. What has no size belongs to the grid in the middle, the square.
    """
    aspects = np.log([width / height for height, width in grids])
    borders = (aspects[1:] + aspects[:-1]) / 2
    known = (sizes > 0).all(1)
    width, height = np.where(known[:, None], sizes, 1).T
    return np.searchsorted(borders, np.log(width / height)).astype(np.uint8)


def join_small(numbers: np.ndarray, num_grids: int, least: int) -> np.ndarray:
    """The same grid numbers, but grids of fewer than `least` samples hand theirs on to the next one towards the middle.

    So no sample is of a shape that never fills a batch. If the middle has too few itself, they go to the largest.
    """
    counts, middle = np.bincount(numbers, minlength=num_grids), num_grids // 2
    goes_to = np.arange(num_grids)
    inwards = [(number, number + 1) for number in range(middle)]
    inwards += [(number, number - 1) for number in range(num_grids - 1, middle, -1)]
    for number, inner in [*inwards, (middle, int(np.argmax(counts)))]:
        if 0 < counts[number] < least and number != inner:
            goes_to[goes_to == number] = inner
            counts[inner] += counts[number]
            counts[number] = 0
    return goes_to.astype(np.uint8)[numbers]


@dataclass(frozen=True, eq=False)
class Bucket:
    """Samples of one shape; in an epoch they come in an order of their own."""

    grid: Grid | None  # None: the model's square
    members: np.ndarray | None  # int32: numbers of the samples, rising; ALL of the set's
    num_samples: int

    def named(self, own: np.ndarray) -> np.ndarray:
        """The samples that stand at places `own` of the bucket, int64."""
        return own if self.members is ALL else self.members[own].astype(np.int64)


class Buckets:
    """The samples of one set, each in one bucket, and whose turn it is in every global batch of an epoch.

    `tail` says what becomes of samples that fill no global batch of their bucket: dropped, or padded up.
    """

    def __init__(self, buckets: Sequence[Bucket], global_batch_size: int, seed: int, tail: str) -> None:
        self.buckets, self._seed = tuple(buckets), seed
        counts = np.array([bucket.num_samples for bucket in buckets], np.int64)
        whole, rest = np.divmod(counts, global_batch_size)
        self._batches = whole + (rest > 0) if tail == "pad" else whole  # of each bucket in an epoch
        self.batches_per_epoch = int(self._batches.sum())
        self.num_dropped = (rest if tail == "drop" else np.zeros_like(rest)).tolist()  # of each bucket in an epoch
        self._turns_of = lru_cache(maxsize=2)(self._turns)

    @cached_property
    def digest(self) -> str:
        """Tells samples that are put into other buckets apart; empty where all are in one."""
        digest = hashlib.blake2b(digest_size=16)
        for bucket in self.buckets:
            if bucket.members is ALL:
                return ""
            digest.update(repr((bucket.grid, bucket.num_samples)).encode() + bucket.members.tobytes())
        return digest.hexdigest()

    def described(self) -> str:
        """How many samples each shape has, on one line."""
        said = [f"{bucket.num_samples} of {'{} x {}'.format(*bucket.grid)}" for bucket in self.buckets if bucket.grid]
        return "images by their shape, in patches down x across: " + ", ".join(said)

    def at(self, epoch: int, batch: int) -> tuple[int, int]:
        """The bucket whose turn it is in a global batch of `epoch`, and how many of its batches came before."""
        turns, before = self._turns_of(epoch)
        return int(turns[batch]), int(before[batch])

    def _turns(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        turns = np.repeat(np.arange(len(self.buckets)), self._batches)
        turns = generator(self._seed, Purpose.BUCKETS, epoch).permutation(turns)
        before = np.empty(len(turns), np.int64)
        for number, count in enumerate(self._batches):
            before[turns == number] = np.arange(count)
        return turns, before


def one_bucket(num_samples: int, global_batch_size: int, seed: int, tail: str) -> Buckets:
    """All samples of a set in the model's square."""
    return Buckets((Bucket(None, ALL, num_samples),), global_batch_size, seed, tail)


def buckets_of(sizes: np.ndarray, grids: Sequence[Grid], global_batch_size: int, *, seed: int, tail: str) -> Buckets:
    """The samples whose images have these widths and heights, int [samples, 2], each in the bucket of its shape."""
    numbers = join_small(nearest_grids(sizes, grids), len(grids), global_batch_size)
    members = [np.flatnonzero(numbers == number).astype(np.int32) for number in range(len(grids))]
    used = [Bucket(grid, own, len(own)) for grid, own in zip(grids, members, strict=True) if len(own)]
    return Buckets(tuple(used), global_batch_size, seed, tail)
