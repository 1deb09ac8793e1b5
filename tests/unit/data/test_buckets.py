"""Aspect-ratio buckets: batches of one shape, every sample once an epoch, the same on any ranks and workers."""

from pathlib import Path

import numpy as np
import pytest

from data_tools.foreign import index_shards
from data_tools.pack import Sample, write_shard
from mmtrain.config.check import find_faults
from mmtrain.config.schema import DataConfig, MlmConfig, ModelConfig, RunConfig, TrainConfig
from mmtrain.data.buckets import buckets_of, grids_within, join_small, nearest_grids
from mmtrain.data.faults import DataError
from mmtrain.data.index import read_sidecar
from mmtrain.data.mixture import EMPTY, Order
from mmtrain.data.order import Shuffle
from mmtrain.data.stream import Stream
from mmtrain.records import Batch
from tests.unit.data.made import files_of, picture, write_tar

SIDE, MAX_ASPECT = 4, 2.0  # patches along the square; ratio of the sides
SHAPES = ((24, 24), (30, 20), (20, 30), (40, 16), (16, 40), (26, 22))  # width, height
MODEL = ModelConfig(image_size=16, patch_size=4, max_text_length=20)
NUM_SAMPLES = 150


def files(number: int) -> dict[str, bytes]:
    """A good sample whose image is of one of a few shapes."""
    return files_of(number) | {"jpg": picture(number, SHAPES[number % len(SHAPES)])}


@pytest.fixture(scope="module")
def mixed_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards whose indexes know the sizes of their images."""
    folder = tmp_path_factory.mktemp("mixed")
    for start in range(0, NUM_SAMPLES, 40):
        numbers = range(start, min(start + 40, NUM_SAMPLES))
        write_shard(folder / f"set-{start:06d}.tar", [Sample(f"k{number:05d}", files(number)) for number in numbers])
    return folder


def open_rank(folder: Path, tokenizer: Path, dp: int = 1, dp_rank: int = 0, **data: object) -> Stream:
    """A rank's stream with global batches of 16 in micro-batches of 4."""
    given = {"num_workers": 0, "max_aspect": MAX_ASPECT, "min_crop_share": 0.7, "flip": True} | data
    config = DataConfig(train=str(folder), tokenizer=tokenizer, **given)
    train = TrainConfig(global_batch_size=16, micro_batch_size=4)
    return Stream(config, MODEL, train, MlmConfig(), seed=3, dp=dp, dp_rank=dp_rank, trim=False)


def take(streams: list[Stream]) -> list[bytes]:
    """The images of one global batch in order, of all ranks."""
    by_rank = [stream.take(stream.num_micro_batches) for stream in streams]
    blocks = [batch for micro_batch in zip(*by_rank, strict=True) for batch in micro_batch]
    return [image.numpy().tobytes() for batch in blocks for image in batch.images_BCHW]


def test_no_grid_has_more_patches_than_the_square_or_is_longer_than_asked():
    assert grids_within(14, 1.0) == ((14, 14),)
    grids = grids_within(14, 2.0)
    assert grids == ((19, 10), (17, 11), (16, 12), (15, 13), (14, 14), (13, 15), (12, 16), (11, 17), (10, 19))
    for side in range(1, 40):
        for height, width in grids_within(side, 3.0):
            assert height * width <= side**2 < (min(height, width)) * (max(height, width) + 1)
            assert max(height, width) <= 3 * min(height, width)


def test_every_image_goes_to_the_grid_of_the_nearest_shape_and_one_of_unknown_size_to_the_square():
    grids = grids_within(14, 2.0)
    sizes = np.array([(500, 500), (640, 480), (480, 640), (3000, 100), (10, 900), (0, 0)])
    assert [grids[number] for number in nearest_grids(sizes, grids)] == [
        (14, 14), (12, 16), (16, 12), (10, 19), (19, 10), (14, 14),
    ]  # fmt: skip


def test_grids_too_small_for_a_batch_hand_their_samples_on_towards_the_square():
    numbers = np.repeat(np.arange(5), [3, 20, 50, 2, 4]).astype(np.uint8)
    assert np.bincount(join_small(numbers, 5, least=8)).tolist() == [0, 23, 56]
    assert np.bincount(join_small(numbers, 5, least=5)).tolist() == [0, 23, 50, 6]
    lonely = np.repeat(np.arange(3), [40, 2, 9]).astype(np.uint8)
    assert np.bincount(join_small(lonely, 3, least=8), minlength=3).tolist() == [42, 0, 9]


@pytest.mark.parametrize("tail", ["drop", "pad"])
def test_every_batch_is_of_one_bucket_and_every_sample_comes_once_an_epoch(tail: str):
    sizes = np.random.default_rng(0).integers(40, 90, (1000, 2))
    grids, shuffle = grids_within(8, 2.0), Shuffle(5, 8, 4)
    numbers = nearest_grids(sizes, grids)
    order = Order([1000], 16, shuffle, tail=tail, buckets=buckets_of(sizes, grids, 16, seed=5, tail=tail))
    turns = []
    for epoch in range(2):
        steps = range(epoch * order.batches_per_epoch, (epoch + 1) * order.batches_per_epoch)
        batches = [order.batch(step) for step in steps]
        for step, batch in zip(steps, batches, strict=True):
            assert {grids[number] for number in numbers[batch[batch != EMPTY]]} == {order.grid(step)}
        seen = np.concatenate(batches)
        left_out = order.dropped(epoch)
        assert np.array_equal(np.sort(np.concatenate([seen[seen != EMPTY], left_out])), np.arange(1000))
        assert len(left_out) == order.num_dropped and (tail == "drop") == bool(len(left_out))
        turns.append([order.grid(step) for step in steps])
    assert turns[0] != turns[1] and sorted(turns[0]) == sorted(turns[1])


def test_ten_million_samples_in_buckets_start_in_the_middle_of_an_epoch_at_once():
    sizes = np.random.default_rng(0).integers(200, 800, (100_000, 2)).repeat(100, 0)
    buckets = buckets_of(sizes, grids_within(14, 2.0), 4096, seed=0, tail="drop")
    assert len(np.unique(Order([len(sizes)], 4096, Shuffle(0), buckets=buckets).batch(1220))) == 4096


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_batches_of_one_shape_that_keeps_the_images_shape(
    mixed_set: Path, tokenizer_path: Path, workers: int
):
    stream = open_rank(mixed_set, tokenizer_path, num_workers=workers)
    shapes = set()
    for _ in range(stream.order.batches_per_epoch):
        batches: list[Batch] = stream.take(4)
        (shape,) = {tuple(batch.images_BCHW.shape[2:]) for batch in batches}
        shapes.add(shape)
        assert all(batch.has_image_B.all() and batch.images_BCHW.float().std() > 10 for batch in batches)
    stream.close()
    assert shapes == {(16, 16), (12, 20), (20, 12)} | ({(8, 32), (32, 8)} & shapes)


@pytest.mark.parametrize(("dp", "workers"), [(2, 0), (4, 2), (1, 3)])
def test_an_interrupted_stream_of_buckets_goes_on_exactly_on_other_ranks_and_workers(
    mixed_set: Path, tokenizer_path: Path, dp: int, workers: int
):
    alone = open_rank(mixed_set, tokenizer_path)
    undisturbed = [take([alone]) for _ in range(12)]
    first = open_rank(mixed_set, tokenizer_path, num_workers=1)
    delivered = [take([first]) for _ in range(5)]
    others = [open_rank(mixed_set, tokenizer_path, dp, rank, num_workers=workers) for rank in range(dp)]
    for stream in others:
        stream.restore(first.state())
    delivered += [take(others) for _ in range(7)]
    assert delivered == undisturbed
    assert {stream.state()["order_hash"] for stream in others} == {alone.state()["order_hash"]}
    for stream in (alone, first, *others):
        stream.close()


def test_a_stream_of_squares_does_not_go_on_with_the_state_of_one_of_buckets(mixed_set: Path, tokenizer_path: Path):
    saved = open_rank(mixed_set, tokenizer_path).state()
    with pytest.raises(DataError, match="data.max_aspect"):
        open_rank(mixed_set, tokenizer_path, max_aspect=1).restore(saved)


def test_shards_of_others_need_an_index_that_knows_sizes_and_mmdata_index_writes_it(
    tmp_path: Path, tokenizer_path: Path
):
    write_tar(tmp_path / "foreign.tar", {f"k{number:03d}": files(number) for number in range(36)})
    with pytest.raises(DataError, match="foreign.tar has no index .* `mmdata index SHARDS --overwrite`"):
        open_rank(tmp_path, tokenizer_path)
    index_shards([str(tmp_path)], 1)
    assert read_sidecar(tmp_path / "foreign.tar").sizes.tolist() == [list(SHAPES[n % 6]) for n in range(36)]
    assert open_rank(tmp_path, tokenizer_path).order.grid(0) is not None


def test_buckets_with_stages_blends_or_texts_alone_are_refused_with_a_way_out():
    def faults(train: object, pp: int = 1) -> str:
        data = {"train": train, "max_aspect": 2.0, "tokenizer": "t"}
        return "\n".join(find_faults(RunConfig.model_validate({"data": data, "parallel": {"pp": pp}}), pp))

    assert "data.max_aspect" not in faults("a")
    assert "data.max_aspect is 2, but parallel.pp is 2" in faults("a", pp=2)
    assert "data.train is a blend of 2 sets" in faults([{"shards": "a"}, {"shards": "b"}])
    assert "has no images" in faults([{"shards": "a", "modality": "text"}])
