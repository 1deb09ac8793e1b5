import numpy as np
import pytest

from mmtrain.data.draws import Purpose, generator
from mmtrain.data.faults import DataError
from mmtrain.data.order import CHUNK_SAMPLES, WINDOW_CHUNKS, Order, derangement, epoch_order


@pytest.mark.parametrize("num_samples", [1, 63, 64, 1000, CHUNK_SAMPLES * WINDOW_CHUNKS, 10_000])
def test_every_epoch_is_a_permutation_of_all_samples(num_samples: int):
    for epoch in range(3):
        assert np.array_equal(np.sort(epoch_order(num_samples, 5, epoch)), np.arange(num_samples))


def test_epochs_and_seeds_have_orders_of_their_own_and_each_is_repeatable():
    orders = [epoch_order(5000, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4
    again = epoch_order.__wrapped__(5000, 1, 1)
    assert np.array_equal(again, orders[3])


def test_the_order_stays_what_it_was_when_runs_were_saved():
    assert epoch_order(1000, 7, 3)[:8].tolist() == [53, 112, 515, 953, 488, 550, 760, 390]


def test_samples_are_mixed_over_the_whole_set_but_read_in_windows_of_chunks():
    num_samples = 20 * CHUNK_SAMPLES * WINDOW_CHUNKS
    order = epoch_order(num_samples, 0, 0)
    assert abs(np.corrcoef(order, np.arange(num_samples))[0, 1]) < 0.1
    window = order[: CHUNK_SAMPLES * WINDOW_CHUNKS]
    assert len(set((window // CHUNK_SAMPLES).tolist())) == WINDOW_CHUNKS
    assert np.mean(np.abs(np.diff(window)) == 1) < 0.01


@pytest.mark.parametrize("dp", [1, 2, 4])
def test_the_ranks_of_any_dp_fill_the_same_global_batch_in_order(dp: int):
    order = Order(100, 16, seed=2)
    for step in (0, 5, 6, 13):
        blocks = [
            order.slots(step, micro_batch, dp=dp, dp_rank=rank, micro_batch_size=4)
            for micro_batch in range(16 // (4 * dp))
            for rank in range(dp)
        ]
        assert np.array_equal(np.concatenate([block.samples for block in blocks]), order.batch(step))
        assert np.concatenate([block.places for block in blocks]).tolist() == list(range(16 * step, 16 * step + 16))
        assert {block.epoch for block in blocks} == {step // 6}


def test_an_epoch_has_whole_batches_and_counts_its_dropped_tail():
    order = Order(100, 16, seed=2)
    assert (order.batches_per_epoch, order.num_dropped) == (6, 4)
    seen = np.concatenate([order.batch(step) for step in range(6)])
    assert len(set(seen.tolist())) == 96


def test_a_set_smaller_than_a_global_batch_is_refused_with_the_knob_to_turn():
    with pytest.raises(DataError, match=r"holds 15 samples.*train.global_batch_size \(16\) to 15"):
        Order(15, 16, seed=0)


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
