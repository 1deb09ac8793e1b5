"""In which order samples are read: a pure function of the seed, the epoch and the number of samples. No torch.

The endless sequence is epoch 0, epoch 1, ...; global batch g is its g-th run of `global_batch_size`
places. Micro-batch k of a global batch is its k-th run of dp x micro_batch_size places, of which
data-parallel rank r takes the r-th part.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mmtrain.data.draws import Purpose, generator
from mmtrain.data.faults import DataError

CHUNK_SAMPLES = 64  # neighbours that stay together until the window: one or a few MB of a shard, read in one go
WINDOW_CHUNKS = 64  # chunks whose samples are mixed with each other


@dataclass(frozen=True)
class Slots:
    """The places that one rank fills in one micro-batch."""

    epoch: int
    samples: np.ndarray  # int64: numbers of the samples, counted over all shards
    places: np.ndarray  # int64: places in the order of the epochs, counted from the run's start


class Order:
    """Which sample stands at which place of a run; DataError when a set is smaller than one global batch."""

    def __init__(self, num_samples: int, global_batch_size: int, seed: int) -> None:
        if num_samples < global_batch_size:
            raise DataError(
                f"data.train holds {num_samples} samples, fewer than one global batch; "
                f"set train.global_batch_size ({global_batch_size}) to {num_samples} or less, or give it more shards"
            )
        self.num_samples, self.global_batch_size, self.seed = num_samples, global_batch_size, seed
        self.batches_per_epoch = num_samples // global_batch_size
        self.num_dropped = num_samples % global_batch_size  # of every epoch; other ones in each

    def batch(self, step: int) -> np.ndarray:
        """Sample numbers of the global batch of `step`, int64 [global_batch_size]."""
        epoch, number = divmod(step, self.batches_per_epoch)
        start = number * self.global_batch_size
        return epoch_order(self.num_samples, self.seed, epoch)[start : start + self.global_batch_size]

    def slots(self, step: int, micro_batch: int, *, dp: int, dp_rank: int, micro_batch_size: int) -> Slots:
        """What rank `dp_rank` of `dp` reads in one micro-batch of the global batch of `step`."""
        start = (micro_batch * dp + dp_rank) * micro_batch_size
        stop = start + micro_batch_size
        assert stop <= self.global_batch_size, f"places {start}..{stop} of a batch of {self.global_batch_size}"
        places = step * self.global_batch_size + np.arange(start, stop)
        return Slots(step // self.batches_per_epoch, self.batch(step)[start:stop], places)


# Two epochs: a reader that looks ahead crosses into the next one while the last micro-batches of this are read.
@lru_cache(maxsize=2)
def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """The samples 0..num_samples-1 in the order of `epoch`, int64, read-only.

    Chunks of neighbours are shuffled over all shards, then samples inside windows of chunks, so that a
    reader finds what it needs next close together.
    """
    numbers = generator(seed, Purpose.ORDER, epoch)
    chunks = numbers.permutation(-(-num_samples // CHUNK_SAMPLES))
    samples = (chunks[:, None] * CHUNK_SAMPLES + np.arange(CHUNK_SAMPLES)).reshape(-1)
    samples = samples[samples < num_samples]
    whole = num_samples - num_samples % (CHUNK_SAMPLES * WINDOW_CHUNKS)
    windows = samples[:whole].reshape(-1, CHUNK_SAMPLES * WINDOW_CHUNKS)
    order = np.concatenate([numbers.permuted(windows, axis=1).reshape(-1), numbers.permutation(samples[whole:])])
    order.flags.writeable = False
    return order


def derangement(num_samples: int, seed: int) -> np.ndarray:
    """For each sample another one, none twice, int64 [num_samples]: the same for the whole run."""
    if num_samples < 2:
        raise DataError(f"data.shuffle_pairs needs two samples or more, got {num_samples}")
    ring = generator(seed, Purpose.PAIRS).permutation(num_samples)
    others = np.empty(num_samples, np.int64)
    others[ring] = np.roll(ring, -1)
    return others
