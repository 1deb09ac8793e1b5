"""In which order the samples of one set are read: a pure function of the seed, the epoch and their number. No torch.

Chunks of neighbours are shuffled over all shards, then samples inside windows of chunks. A reader finds the
samples that it needs next in as many runs of a shard as a window has chunks. So `chunk_samples` trades
mixing for few and long reads (one chunk of 64 images is one or a few MB, the unit of a request to an
object store), and `window_chunks` trades mixing for locality: two samples of one chunk are never further
apart than a window. With 64 x 64, random reads cost about a quarter more than sequential ones from a warm
page cache. One read at random (chunk_samples 1) is for data in memory or on NVMe.
"""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial

import numpy as np

from mmtrain.data.draws import Purpose, generator
from mmtrain.data.faults import DataError

CHUNK_SAMPLES, WINDOW_CHUNKS = 64, 64
MAX_WINDOWS = 2**40  # of one set
MAX_WINDOWS_HELD = 8


@dataclass(frozen=True)
class Shuffle:
    """How the samples of a set are mixed in every epoch."""

    seed: int
    chunk_samples: int = CHUNK_SAMPLES
    window_chunks: int = WINDOW_CHUNKS
    set_number: int = 0  # in a blend; sets have orders of their own, also where two are of one size

    def numbers(self, epoch: int, purpose: int) -> np.random.Generator:
        """The random numbers of an epoch's chunks (purpose 0) or of its window `purpose` - 1."""
        return generator(self.seed, Purpose.ORDER, epoch, self.set_number * MAX_WINDOWS + purpose)


@dataclass(frozen=True, eq=False)
class EpochOrder:
    """The samples 0..num_samples-1 in the order of `epoch`, worked out window by window, so any place of it is near.

    The last chunk of the set may be shorter than the others; wherever it falls, what follows moves up.
    """

    num_samples: int
    shuffle: Shuffle
    epoch: int
    _held: dict[int, np.ndarray] = field(default_factory=dict)  # windows by number, the last few

    @cached_property
    def _chunks(self) -> np.ndarray:
        return self.shuffle.numbers(self.epoch, 0).permutation(-(-self.num_samples // self.shuffle.chunk_samples))

    @cached_property
    def _short(self) -> tuple[int, int]:
        """Where the chunk at the end of the set stands in this order, and how many samples it lacks."""
        (place,) = np.flatnonzero(self._chunks == len(self._chunks) - 1)
        return int(place), -self.num_samples % self.shuffle.chunk_samples

    def span(self, start: int, stop: int) -> np.ndarray:
        """The samples at places `start`..`stop`-1, int64."""
        if not (0 <= start <= stop <= self.num_samples):
            raise RuntimeError(f"places {start}..{stop} of {self.num_samples}")
        start, stop = int(start), int(stop)
        pieces, window = [np.empty(0, np.int64)], self._window_of(start)
        while start < stop:
            first, samples = self._starts_at(window), self._window(window)
            pieces.append(samples[start - first : stop - first])
            start += len(pieces[-1])
            window += 1
        return np.concatenate(pieces)

    def _starts_at(self, window: int) -> int:
        place, lacking = self._short
        first_chunk = window * self.shuffle.window_chunks
        return first_chunk * self.shuffle.chunk_samples - (lacking if place < first_chunk else 0)

    def _window_of(self, place: int) -> int:
        guess = place // (self.shuffle.chunk_samples * self.shuffle.window_chunks)
        return guess + 1 if self._starts_at(guess + 1) <= place else guess

    def _window(self, window: int) -> np.ndarray:
        if window not in self._held:
            size, width = self.shuffle.chunk_samples, self.shuffle.window_chunks
            chunks = self._chunks[window * width : (window + 1) * width]
            samples = (chunks[:, None] * size + np.arange(size)).reshape(-1)
            numbers = self.shuffle.numbers(self.epoch, 1 + window)
            while len(self._held) >= MAX_WINDOWS_HELD:
                del self._held[next(iter(self._held))]
            self._held[window] = numbers.permutation(samples[samples < self.num_samples])
        return self._held[window]


class SetOrder:
    """The samples of one set in the endless sequence epoch 0, epoch 1, ..."""

    def __init__(self, num_samples: int, shuffle: Shuffle) -> None:
        self.num_samples, self.shuffle = num_samples, shuffle
        # Two epochs: a reader that looks ahead crosses into the next one while the last places of this are read.
        self.epoch = lru_cache(maxsize=2)(partial(EpochOrder, num_samples, shuffle))

    def span(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and samples at places `start`..`stop`-1 of the sequence, int64 each."""
        epochs, samples = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        while start < stop:
            epoch, place = divmod(start, self.num_samples)
            end = min(self.num_samples, place + stop - start)
            samples.append(self.epoch(epoch).span(place, end))
            epochs.append(np.full(end - place, epoch, np.int64))
            start += end - place
        return np.concatenate(epochs), np.concatenate(samples)


def derangement(num_samples: int, seed: int) -> np.ndarray:
    """For each sample another one, none twice, int64 [num_samples]: the same for the whole run."""
    if num_samples < 2:
        raise DataError(f"data.shuffle_pairs needs two samples or more, got {num_samples}")
    ring = generator(seed, Purpose.PAIRS).permutation(num_samples)
    others = np.empty(num_samples, np.int64)
    others[ring] = np.roll(ring, -1)
    return others
