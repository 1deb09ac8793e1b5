"""Which layouts are offered: only legal ones, the nearest first, also where the number of ranks itself is at fault."""

import pytest

from mmtrain.config.layout import layout_faults
from mmtrain.config.load import load_config
from mmtrain.config.schema import RunConfig
from mmtrain.planner.search import legal_layouts, nearest_layouts

PIECES, DEVICE = 512, 80 * 2**30
TWELVE_HEADS = ("model.num_heads=12", "itm.pool_size=4", "train.micro_batch_size=4")


def run_of(*overrides: str) -> RunConfig:
    return load_config(None, [*TWELVE_HEADS, *overrides])


def test_every_layout_that_is_offered_is_legal_and_none_is_missing() -> None:
    found = legal_layouts(run_of(), 8, PIECES, "bf16", DEVICE)
    grids = {(candidate.config.parallel.tp, candidate.config.parallel.pp) for candidate in found}
    assert grids == {(tp, pp) for tp in (1, 2, 4) for pp in (1, 2, 4, 8) if 8 % (tp * pp) == 0}
    assert all(layout_faults(candidate.config, 8, PIECES) == [] for candidate in found)


def test_the_likely_fastest_comes_first_and_what_does_not_fit_comes_last() -> None:
    found = legal_layouts(run_of(), 8, PIECES, "bf16", DEVICE)
    assert [one.seconds for one in found] == sorted(one.seconds for one in found)
    between = sorted(one.peak_bytes for one in found)[len(found) // 2]
    fits = [one.peak_bytes <= between for one in legal_layouts(run_of(), 8, PIECES, "bf16", between)]
    assert True in fits and False in fits and fits == sorted(fits, reverse=True)


@pytest.mark.parametrize(
    ("overrides", "world_size", "nearest"),
    [
        (["parallel.tp=5"], 8, "parallel.tp=4 parallel.pp=1"),
        (["parallel.pp=9"], 8, "parallel.tp=1 parallel.pp=8"),
        (
            ["parallel.pp=2", "parallel.stage_layers=[9, 9]"],
            2,
            "parallel.tp=1 parallel.pp=2 parallel.stage_layers=null",
        ),
        (["parallel.sequence_parallel=true"], 1, "parallel.tp=1 parallel.pp=1 parallel.sequence_parallel=false"),
        (["zero.stage=1", "zero.gather=per_use"], 1, "parallel.tp=1 parallel.pp=1 zero.gather=auto"),
    ],
)
def test_the_nearest_layout_is_named_by_the_knobs_to_turn(overrides: list[str], world_size: int, nearest: str) -> None:
    assert nearest_layouts(run_of(*overrides), world_size, PIECES, "bf16", DEVICE)[0].words == nearest


def test_where_no_layout_fits_the_ranks_the_nearest_number_of_ranks_is_taken() -> None:
    config = run_of("train.global_batch_size=12")
    assert layout_faults(config, 17) and legal_layouts(config, 17, PIECES, "bf16", DEVICE) == []
    found = nearest_layouts(config, 17, PIECES, "bf16", DEVICE)
    assert found and {candidate.world_size for candidate in found} == {16}
