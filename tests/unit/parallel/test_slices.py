"""Which rectangles a flat range of a slice is."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtrain.parallel.slices import Slice

SHAPES = ((), (7,), (4, 5), (1, 6), (6, 1), (3, 4, 2))


@pytest.mark.parametrize("shape", SHAPES)
def test_rectangles_of_any_range_hold_its_elements_in_order(shape: tuple[int, ...]) -> None:
    numel = math.prod(shape)
    whole = np.arange(numel).reshape(shape)
    place = Slice.of_part("w", shape, None, 0, 1)
    for start in range(numel + 1):
        for stop in range(start, numel + 1):
            parts = list(place.rectangles(start, stop))
            found = [whole[part.index].reshape(-1) for part in parts]
            assert np.array_equal(np.concatenate([np.empty(0, int), *found]), np.arange(start, stop)), (start, stop)
            assert len(parts) <= (3 if len(shape) < 3 else 5)
            assert all(part.shape == whole[part.index].shape for part in parts)


def test_rectangles_of_a_tensor_parallel_slice_lie_where_it_lies() -> None:
    place = Slice.of_part("w", (2, 3), 1, 1, 2)  # the right half of [2, 6]
    assert [(part.offset, part.shape) for part in place.rectangles(2, 5)] == [((0, 5), (1, 1)), ((1, 3), (1, 2))]
    assert all(part.global_shape == (2, 6) for part in place.rectangles(0, 6))


def test_what_is_kept_beside_a_tensor_lies_as_it_does_under_a_name_of_its_own() -> None:
    place = Slice.of_part("w", (2, 3), 1, 1, 2)
    assert place.of("").name == "w"
    assert place.of("exp_avg") == Slice("exp_avg/w", (2, 6), (0, 3), (2, 3))


@given(st.data(), st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple), st.integers(1, 4))
def test_ranges_of_all_parts_tile_the_whole_tensor(data: st.DataObject, shape: tuple[int, ...], num_parts: int) -> None:
    """However a tensor is sharded along an axis, and each shard cut into flat ranges, every element is held once."""
    dim = data.draw(st.none() | st.integers(0, len(shape) - 1))
    parts = [Slice.of_part("w", shape, dim, part, num_parts) for part in range(1 if dim is None else num_parts)]
    whole = np.zeros(parts[0].global_shape, int)
    for part in parts:
        numel = math.prod(part.shape)
        ends = [0, *sorted(data.draw(st.lists(st.integers(0, numel), max_size=4))), numel]
        local = np.arange(numel).reshape(part.shape)
        held = np.full(whole.shape, -1)
        held[part.index] = local
        for start, stop in zip(ends[:-1], ends[1:], strict=True):
            found = [held[piece.index].reshape(-1) for piece in part.rectangles(start, stop)]
            assert np.concatenate([np.empty(0, int), *found]).tolist() == list(range(start, stop))
            for piece in part.rectangles(start, stop):
                whole[piece.index] += 1
    assert (whole == 1).all()
