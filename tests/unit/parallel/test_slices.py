"""Which rectangles a flat range of a slice is."""

import math

import numpy as np
import pytest

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
