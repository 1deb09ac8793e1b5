"""Where ranks stand and what part of a tensor they hold, without processes."""

import pytest

from mmtrain.parallel.grid import Coord, Grid
from mmtrain.parallel.slices import Slice


def test_neighbours_along_tp_are_adjacent_ranks_and_pp_is_the_slowest_axis() -> None:
    grid = Grid.over(8, tp=2, pp=2)
    assert (grid.pp, grid.dp, grid.tp) == (2, 2, 2)
    assert [grid.coord(rank) for rank in (0, 1, 2, 4)] == [
        Coord(pp=0, dp=0, tp=0),
        Coord(pp=0, dp=0, tp=1),
        Coord(pp=0, dp=1, tp=0),
        Coord(pp=1, dp=0, tp=0),
    ]


@pytest.mark.parametrize(("world_size", "tp", "pp"), [(1, 1, 1), (6, 3, 1), (12, 2, 3), (8, 1, 8)])
def test_rank_and_coord_are_each_others_inverse(world_size: int, tp: int, pp: int) -> None:
    grid = Grid.over(world_size, tp, pp)
    assert grid.world_size == world_size
    assert [grid.rank(grid.coord(rank)) for rank in range(world_size)] == list(range(world_size))


def test_a_world_that_the_axes_do_not_fill_is_no_grid() -> None:
    with pytest.raises(RuntimeError, match="6 ranks do not fill"):
        Grid.over(6, tp=4, pp=1)


def test_the_parts_of_a_tensor_tile_it() -> None:
    parts = [Slice.of_part("weight", (2, 5), dim=0, part=part, num_parts=3) for part in range(3)]
    assert {part.global_shape for part in parts} == {(6, 5)}
    assert [part.offset for part in parts] == [(0, 0), (2, 0), (4, 0)]
    assert parts[1].index == (slice(2, 4), slice(0, 5))


def test_an_uncut_tensor_is_one_slice() -> None:
    whole = Slice.of_part("bias", (7,), dim=None, part=1, num_parts=2)
    assert whole.global_shape == whole.shape == (7,) and whole.offset == (0,)
