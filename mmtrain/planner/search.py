"""Which layouts of a run are legal on a number of ranks: the likely fastest first, or those nearest to a wish."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from mmtrain.config.depth import layers_of
from mmtrain.config.layout import layout_faults, legal_tps
from mmtrain.config.schema import RunConfig
from mmtrain.config.shapes import data_parallel_size, padded_vocab_size
from mmtrain.planner.memory import choose_gather, peak_bytes, with_gather
from mmtrain.planner.speed import step_seconds

WORLDS_TRIED = 64  # other numbers of ranks that are looked at where none fits the wanted one


@dataclass(frozen=True)
class Candidate:
    """A legal layout of a run on `world_size` ranks, with what is estimated of it."""

    config: RunConfig  # with zero.gather decided
    world_size: int
    words: str  # the knobs that make it out of the run it was found for
    seconds: float  # of a step, good for comparing only
    peak_bytes: int  # of the fullest rank

    @property
    def dp(self) -> int:
        """Data-parallel ranks."""
        return data_parallel_size(self.config, self.world_size)


def legal_layouts(
    config: RunConfig, world_size: int, num_pieces: int, precision: str, device_bytes: int
) -> list[Candidate]:
    """Every legal (tp, pp) of the run on `world_size` ranks; those that fit the device first, each by estimated time.

    A cut by hand and sequence parallelism are kept where they are legal, and dropped where they are not.
    """
    found = [
        _candidate(layout, config, world_size, padded_vocab_size(num_pieces), precision, device_bytes)
        for layout in _layouts(config, world_size, num_pieces)
    ]
    return sorted(found, key=lambda candidate: (candidate.peak_bytes > device_bytes, candidate.seconds))


def nearest_layouts(
    config: RunConfig, world_size: int, num_pieces: int, precision: str, device_bytes: int, *, at_most: int = 3
) -> list[Candidate]:
    """The legal layouts nearest to the run's own, doublings of tp and pp being steps; of equals the likely faster.

    Where none is legal on `world_size` ranks, those of the nearest number of ranks that has any.
    """
    others = (world_size + sign * step for step in range(1, WORLDS_TRIED) for sign in (-1, 1))
    for world in (world_size, *(other for other in others if other > 0)):
        found = legal_layouts(config, world, num_pieces, precision, device_bytes)
        if found:
            return sorted(found, key=lambda candidate: _distance(candidate.config, config))[:at_most]
    return []


def _candidate(
    layout: RunConfig, wish: RunConfig, world_size: int, vocab_size: int, precision: str, device_bytes: int
) -> Candidate:
    choice = choose_gather(layout, world_size, vocab_size, precision, device_bytes)
    decided = with_gather(layout, choice.mode)
    return Candidate(
        decided,
        world_size,
        words=_words(layout, wish),
        seconds=step_seconds(decided, world_size, vocab_size, precision),
        peak_bytes=peak_bytes(decided, world_size, vocab_size, precision),
    )


def _words(layout: RunConfig, wish: RunConfig) -> str:
    """tp and pp, and whatever else is not as it was wished."""
    changed = [f"parallel.tp={layout.parallel.tp}", f"parallel.pp={layout.parallel.pp}"]
    if layout.parallel.sequence_parallel != wish.parallel.sequence_parallel:
        changed.append("parallel.sequence_parallel=false")
    if layout.parallel.stage_layers != wish.parallel.stage_layers:
        changed.append("parallel.stage_layers=null")
    if layout.parallel.chunks_per_stage != wish.parallel.chunks_per_stage:
        changed.append("parallel.chunks_per_stage=1")
    knobs = ("gather", "grad_accumulation")
    changed += [
        f"zero.{knob}={getattr(layout.zero, knob)}"
        for knob in knobs
        if getattr(layout.zero, knob) != getattr(wish.zero, knob)
    ]
    return " ".join(changed)


def _layouts(config: RunConfig, world_size: int, num_pieces: int) -> Iterator[RunConfig]:
    for tp in legal_tps(config.model, num_pieces):
        for pp in range(1, sum(layers_of(config.model).values()) + 1):
            if world_size % (tp * pp) == 0:
                legal = (
                    layout for layout in _variants(config, tp, pp) if not layout_faults(layout, world_size, num_pieces)
                )
                yield from (layout for layout in [next(legal, None)] if layout is not None)


def _variants(config: RunConfig, tp: int, pp: int) -> Iterator[RunConfig]:
    """The run on that grid: as it is, then without what may be in the way."""
    parallel, zero = config.parallel, config.zero
    zeros = [
        zero.model_copy(update=update)
        for update in (
            {},
            {"gather": "auto"},
            {"grad_accumulation": "fp32"},
            {"gather": "auto", "grad_accumulation": "fp32"},
        )
    ]
    choices = {
        "sequence_parallel": dict.fromkeys((parallel.sequence_parallel, False)),
        "stage_layers": dict.fromkeys((parallel.stage_layers, None)),
        "chunks_per_stage": dict.fromkeys((parallel.chunks_per_stage, 1)),
    }
    for chosen in product(*choices.values()):
        grid = parallel.model_copy(update={"tp": tp, "pp": pp, **dict(zip(choices, chosen, strict=True))})
        yield from (config.model_copy(update={"parallel": grid, "zero": kept}) for kept in zeros)


def _distance(config: RunConfig, wish: RunConfig) -> float:
    axes = ((config.parallel.tp, wish.parallel.tp), (config.parallel.pp, wish.parallel.pp))
    return sum(abs(math.log2(own / wanted)) for own, wanted in axes)
