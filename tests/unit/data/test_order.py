import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtrain.data.draws import Draws, Purpose, generator
from mmtrain.data.faults import DataError
from mmtrain.data.mixture import BLEND_BLOCK, EMPTY, WEIGHT_UNITS, Order, shares, whole_parts
from mmtrain.data.order import CHUNK_SAMPLES, WINDOW_CHUNKS, EpochOrder, SetOrder, Shuffle, derangement

WINDOW_SAMPLES = CHUNK_SAMPLES * WINDOW_CHUNKS


def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    return EpochOrder(num_samples, Shuffle(seed), epoch).span(0, num_samples)


@pytest.mark.parametrize("num_samples", [1, 63, 64, 1000, WINDOW_SAMPLES, 10_000])
def test_every_epoch_is_a_permutation_of_all_samples(num_samples: int):
    for epoch in range(3):
        assert np.array_equal(np.sort(epoch_order(num_samples, 5, epoch)), np.arange(num_samples))


@pytest.mark.parametrize(("chunk", "window"), [(64, 64), (7, 3), (1, 5), (100, 1)])
def test_any_span_of_an_epoch_is_what_the_whole_epoch_has_there(chunk: int, window: int):
    shuffle, numbers = Shuffle(1, chunk, window), np.random.default_rng(0)
    whole = EpochOrder(9999, shuffle, 2).span(0, 9999)
    assert np.array_equal(np.sort(whole), np.arange(9999))
    for start, stop in np.sort(numbers.integers(0, 10_000, (60, 2)), axis=1).tolist():
        assert np.array_equal(EpochOrder(9999, shuffle, 2).span(start, stop), whole[start:stop])


def test_epochs_and_seeds_have_orders_of_their_own_and_each_is_repeatable():
    orders = [epoch_order(5000, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4
    assert np.array_equal(epoch_order(5000, 1, 1), orders[3])


def test_the_order_stays_what_it_was_when_runs_were_saved():
    assert epoch_order(1000, 7, 3)[:8].tolist() == [15, 251, 56, 106, 296, 875, 935, 240]
    blend = Order([100, 40], 8, Shuffle(7), weights=[3, 1])
    assert blend.batch(5).tolist() == [54, 62, 2, 134, 126, 75, 85, 120]


def test_samples_are_mixed_over_the_whole_set_but_read_in_windows_of_chunks():
    num_samples = 20 * WINDOW_SAMPLES
    order = epoch_order(num_samples, 0, 0)
    assert abs(np.corrcoef(order, np.arange(num_samples))[0, 1]) < 0.1
    window = order[:WINDOW_SAMPLES]
    assert len(set((window // CHUNK_SAMPLES).tolist())) == WINDOW_CHUNKS
    assert np.mean(np.abs(np.diff(window)) == 1) < 0.01


def test_the_middle_of_an_epoch_is_found_without_the_whole_order():
    num_samples = 10_000_000
    tracemalloc.start()
    try:
        Order([num_samples], 4096, Shuffle(0)).batch(1220)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < num_samples  # an order of all of them would be eight bytes a sample


@pytest.mark.parametrize("sizes", [[100], [60, 40]])
@pytest.mark.parametrize("dp", [1, 2, 4])
def test_the_ranks_of_any_dp_fill_the_same_global_batch_in_order(dp: int, sizes: list[int]):
    order = Order(sizes, 16, Shuffle(2))
    for step in (0, 5, 6, 13):
        blocks = [
            order.slots(step, micro_batch, dp=dp, dp_rank=rank, micro_batch_size=4)
            for micro_batch in range(16 // (4 * dp))
            for rank in range(dp)
        ]
        assert np.array_equal(np.concatenate([block.samples for block in blocks]), order.batch(step))
        assert np.concatenate([block.places for block in blocks]).tolist() == list(range(16 * step, 16 * step + 16))
        if len(sizes) == 1:
            assert {epoch for block in blocks for epoch in block.epochs.tolist()} == {step // 6}


def test_an_epoch_has_whole_batches_and_its_dropped_tail_is_known():
    order = Order([100], 16, Shuffle(2))
    assert (order.batches_per_epoch, order.num_dropped) == (6, 4)
    for epoch in range(2):
        seen = np.concatenate([order.batch(6 * epoch + step) for step in range(6)])
        assert sorted([*seen, *order.dropped(epoch)]) == list(range(100))
    assert set(order.dropped(0)) != set(order.dropped(1))


def test_a_padded_epoch_delivers_every_sample_and_ends_in_empty_places():
    order = Order([100], 16, Shuffle(2), tail="pad")
    assert (order.batches_per_epoch, order.num_dropped) == (7, 0)
    epochs = np.concatenate([order.batch(step) for step in range(14)]).reshape(2, -1)
    for seen in epochs:
        assert sorted(seen[:100]) == list(range(100)) and (seen[100:] == EMPTY).all()
    assert Order([3], 16, Shuffle(0), tail="pad").batch(5)[3:].tolist() == [EMPTY] * 13


def test_a_set_smaller_than_a_global_batch_is_refused_with_the_knob_to_turn():
    with pytest.raises(DataError, match=r"holds 15 samples.*train.global_batch_size \(16\) to 15"):
        Order([15], 16, Shuffle(0))


@pytest.mark.parametrize("weights", [[1, 1, 2], [1e-9, 5, 3], [0.1, 0.2, 0.7]])
def test_every_run_of_places_of_a_blend_holds_each_sets_share_to_within_one_sample_per_set(weights: list[float]):
    parts = whole_parts(weights)
    assert sum(parts) == WEIGHT_UNITS and min(parts) >= 1
    assert np.allclose(np.array(parts) / WEIGHT_UNITS, np.array(weights) / sum(weights), atol=1e-5)
    counts = np.array([shares(parts, places) for places in range(0, 3000)])
    assert (np.diff(counts, axis=0) >= 0).all() and np.array_equal(counts.sum(axis=1), np.arange(3000))
    expected = np.arange(3000)[:, None] * np.array(parts) / WEIGHT_UNITS
    assert np.abs(counts - expected).max() <= len(parts)
    far = shares(parts, 10**15)
    assert far.sum() == 10**15 and (far >= 0).all()


def test_the_sets_of_a_blend_go_through_epochs_of_their_own_without_a_gap():
    sizes = (1000, 50, 300)
    order = Order(sizes, 64, Shuffle(0), weights=[1, 1, 2])
    slots = [order.slots(step, 0, dp=1, dp_rank=0, micro_batch_size=64) for step in range(64)]
    samples = np.concatenate([each.samples for each in slots])
    epochs = np.concatenate([each.epochs for each in slots])
    start = 0
    for number, size in enumerate(sizes):
        here = (samples >= start) & (samples < start + size)
        expected = SetOrder(size, Shuffle(0, set_number=number)).span(0, here.sum())
        assert np.array_equal(epochs[here], expected[0]) and np.array_equal(samples[here] - start, expected[1])
        for epoch in range(epochs[here].max()):
            assert sorted(samples[here][epochs[here] == epoch] - start) == list(range(size))
        start += size


def test_a_blend_does_not_depend_on_the_size_of_the_global_batch():
    small, large = (Order([90, 30], size, Shuffle(1), weights=[2, 3]) for size in (8, 120))
    one = np.concatenate([small.batch(step) for step in range(3 * BLEND_BLOCK // 8 * 5)])
    assert np.array_equal(one, np.concatenate([large.batch(step) for step in range(len(one) // 120)]))


@pytest.mark.parametrize("num_samples", [2, 3, 1000])
def test_shuffled_pairs_give_every_sample_another_ones_image(num_samples: int):
    others = derangement(num_samples, seed=4)
    assert np.array_equal(np.sort(others), np.arange(num_samples))
    assert not np.any(others == np.arange(num_samples))
    assert np.array_equal(others, derangement(num_samples, seed=4))


def test_one_sample_cannot_be_deranged():
    with pytest.raises(DataError, match="data.shuffle_pairs"):
        derangement(1, seed=0)


def test_draws_differ_by_seed_epoch_sample_and_purpose_and_by_nothing_else():
    keys = [(0, Purpose.MASK, 0, 0), (1, Purpose.MASK, 0, 0), (0, Purpose.CROP, 0, 0), (0, Purpose.MASK, 1, 0)]
    keys += [(0, Purpose.MASK, 0, 1), (0, Purpose.MASK, 0, 2**40)]
    drawn = [generator(*key).random(50).tobytes() for key in keys]
    assert len(set(drawn)) == len(keys)
    assert drawn == [generator(*key).random(50).tobytes() for key in keys]


def test_a_generator_that_is_set_to_a_place_gives_what_a_new_one_there_gives():
    draws = Draws(5)
    for key in [(Purpose.CROP, 3, 77), (Purpose.MASK, 0, 2**33), (Purpose.CROP, 3, 77)]:
        numbers, fresh = draws.at(*key), generator(5, *key)
        # Also whatever a draw leaves behind: half a word, a part of a block.
        assert numbers.integers(0, 9, 3, np.uint32).tolist() == fresh.integers(0, 9, 3, np.uint32).tolist()
        assert numbers.permutation(11).tolist() == fresh.permutation(11).tolist()
        assert numbers.random(5).tolist() == fresh.random(5).tolist()


@given(
    st.integers(1, 300),
    st.integers(1, 70),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
    st.integers(0, 5),
    st.lists(st.integers(0, 300), max_size=5),
)
def test_any_cut_of_an_epoch_reads_every_sample_once(
    num_samples: int, chunk: int, window: int, seed: int, epoch: int, cuts: list[int]
) -> None:
    order = EpochOrder(num_samples, Shuffle(seed, chunk, window), epoch)
    ends = [0, *sorted(min(cut, num_samples) for cut in cuts), num_samples]
    read = np.concatenate([order.span(start, stop) for start, stop in zip(ends[:-1], ends[1:], strict=True)])
    assert sorted(read.tolist()) == list(range(num_samples))
    assert read.tolist() == EpochOrder(num_samples, Shuffle(seed, chunk, window), epoch).span(0, num_samples).tolist()


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=6), st.integers(0, 10**9))
def test_a_blends_shares_add_up_and_rise_one_by_one(weights: list[float], num_places: int) -> None:
    parts = whole_parts(weights)
    assert sum(parts) == WEIGHT_UNITS and min(parts) >= 1
    now, then = shares(parts, num_places), shares(parts, num_places + 1)
    assert now.sum() == num_places and sorted((then - now).tolist()) == [0] * (len(parts) - 1) + [1]
    exact = [num_places * part / WEIGHT_UNITS for part in parts]
    assert all(abs(count - wanted) <= len(parts) for count, wanted in zip(now.tolist(), exact, strict=True))
