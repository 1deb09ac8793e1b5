"""A run is interrupted and goes on with other ranks and workers: what it delivers is what it would have anyway."""

from dataclasses import fields
from functools import lru_cache
from math import lcm
from pathlib import Path
from random import Random

import pytest

from mmtrain.config.schema import DataConfig, MlmConfig, TrainConfig
from mmtrain.data.stream import Stream
from tests.unit.data.made import MODEL, write_set

NUM_CASES = 50
MAX_RANKS, MAX_WORKERS = 8, 3
NUM_STEPS = 6


@pytest.fixture(scope="session")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("elastic")
    return write_set(folder / "large", 150), write_set(folder / "small", 30)


def open_ranks(sets: tuple, tokenizer: Path, global_batch_size: int, ranks: int, workers: int, tail: str) -> list:
    """The streams of all ranks; every rank's share of a global batch is one micro-batch or two."""
    data = DataConfig(train=sets, tokenizer=tokenizer, num_workers=workers, min_crop_share=0.6, flip=True, tail=tail)
    share = global_batch_size // ranks
    train = TrainConfig(global_batch_size=global_batch_size, micro_batch_size=share // 2 if share % 2 == 0 else share)
    return [
        Stream(data, MODEL, train, MlmConfig(), seed=9, dp=ranks, dp_rank=rank, trim=False) for rank in range(ranks)
    ]


def take(streams: list[Stream]) -> tuple[list[bytes], str]:
    """One global batch, put together from all ranks, sample by sample and bit for bit; and the hash of the order."""
    by_rank = [stream.take(stream.num_micro_batches) for stream in streams]
    samples = []
    for batch in (batch for micro_batch in zip(*by_rank, strict=True) for batch in micro_batch):
        parts = [getattr(batch, field.name).numpy() for field in fields(batch)]
        samples += [b"".join(part[row].tobytes() for part in parts) for row in range(len(parts[0]))]
    (order_hash,) = {stream.state()["order_hash"] for stream in streams}
    return samples, order_hash


@pytest.mark.parametrize("case", range(NUM_CASES))
def test_a_run_interrupted_anywhere_goes_on_exactly_on_any_ranks_and_workers(
    two_sets: tuple[Path, Path], tokenizer_path: Path, case: int
):
    numbers = Random(case)
    before, after = [(numbers.randint(1, MAX_RANKS), numbers.randint(0, MAX_WORKERS)) for _ in range(2)]
    saved_after = numbers.randrange(NUM_STEPS)
    lost = numbers.randrange(2)  # steps taken after the save, which the crash undoes
    is_blend, tail = numbers.random() < 0.5, numbers.choice(("drop", "pad"))
    large, small = (str(path) for path in two_sets)
    sets = ({"shards": large, "weight": 2}, {"shards": small, "weight": 1}) if is_blend else (large,)
    size = lcm(before[0], after[0]) * (1 if lcm(before[0], after[0]) > 12 else 2)
    undisturbed = _undisturbed(sets if not is_blend else "blend", two_sets, tokenizer_path, size, tail)
    streams = open_ranks(sets, tokenizer_path, size, *before, tail)
    delivered = [take(streams) for _ in range(saved_after)]
    saved = streams[-1].state()
    for _ in range(lost):
        take(streams)
    for stream in streams:
        stream.close()
    streams = open_ranks(sets, tokenizer_path, size, *after, tail)
    for stream in streams:
        stream.restore(saved)
    delivered += [take(streams) for _ in range(saved_after, NUM_STEPS)]
    for stream in streams:
        stream.close()
    assert delivered == list(undisturbed)


@lru_cache(maxsize=NUM_CASES)
def _undisturbed(sets: tuple | str, folders: tuple[Path, Path], tokenizer: Path, size: int, tail: str) -> tuple:
    large, small = (str(path) for path in folders)
    blend = ({"shards": large, "weight": 2}, {"shards": small, "weight": 1})
    streams = open_ranks(blend if sets == "blend" else sets, tokenizer, size, 1, 0, tail)
    return tuple(take(streams) for _ in range(NUM_STEPS))
