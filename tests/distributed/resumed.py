"""Runs on real shards that save in one layout and are taken up in another, one after the other on the same ranks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers import run_ranks, tiny_plan

NUM_STEPS = 3  # before the checkpoint, and again after it
BLOCK = 8  # samples that are contrasted with each other, in every layout

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Layout:
    """How a run is cut, and how many processes read for each of its ranks."""

    dp: int = 1
    tp: int = 1
    pp: int = 1
    stage: int = 3
    gather: str = "per_use"
    chunks: int = 1
    workers: int = 1

    @property
    def world_size(self) -> int:
        return self.dp * self.tp * self.pp

    def __str__(self) -> str:
        zero = f"-zero{self.stage}-{self.gather}" if self.dp > 1 else ""
        chunks = f"-chunks{self.chunks}" if self.chunks > 1 else ""
        return f"dp{self.dp}-tp{self.tp}-pp{self.pp}{chunks}{zero}-workers{self.workers}"


@dataclass(frozen=True)
class Went:
    """What one rank, or all together, had of a run around its checkpoint."""

    tensors: Any  # weights and moments: rectangles of one rank, or whole
    losses: list[dict[str, float]]  # of the steps after it
    stream: dict[str, Any]  # where the data stands after them
    engine: dict[str, int]


Task = tuple[Layout, str, bool]  # the layout, the run folder, whether to begin there and save, or to resume


def plan_of(layout: Layout, data: str, run_dir: str) -> Any:
    """A run of `tiny_plan` on the set in `data`."""
    return tiny_plan(
        parallel={"tp": layout.tp, "pp": layout.pp, "chunks_per_stage": layout.chunks},
        zero={"stage": layout.stage, "gather": layout.gather},
        train={"micro_batch_size": BLOCK // layout.dp},
        model={"max_text_length": 16},
        data={"train": f"{data}/train", "tokenizer": f"{data}/tokenizer.model", "num_workers": layout.workers},
        itm={"pool_size": 2},
    ).model_copy(update={"run_dir": Path(run_dir)})


def on_a_rank(tasks: list[Task], data: str) -> list[Went]:
    """This rank's part of each task; the grid is cut anew for each."""
    from megatron.core import parallel_state

    found = []
    for layout, run_dir, begins in tasks:
        if parallel_state.is_initialized():
            parallel_state.destroy_model_parallel()  # the processes stay joined
        found.append(_one(plan_of(layout, data, run_dir), begins))
    return found


def _one(plan: Any, begins: bool) -> Went:
    from mmtrain.checkpoint.changes import Changes
    from mmtrain.checkpoint.keeper import Keeper
    from mmtrain.checkpoint.resume import describe
    from mmtrain.data.stream import KNOBS, open_tokenizer
    from mmtrain.engine.build import build_engine, join, open_stream
    from mmtrain.parallel.launch import read_launch

    launch, tokenizer = read_launch(), open_tokenizer(plan.data)
    stream = open_stream(plan, launch, tokenizer)
    place = join(plan, launch)
    engine = build_engine(plan, place, num_pieces=tokenizer.num_pieces)
    here = describe(plan, launch.world_size, stream, tokenizer)
    keeper = Keeper(plan.run_dir, here, plan.checkpoint, Changes(KNOBS))
    step = keeper.resume(engine, stream)
    assert step == (0 if begins else NUM_STEPS)
    if begins:
        for _ in range(NUM_STEPS):
            engine.step(stream.take(stream.num_micro_batches))
        keeper.save(NUM_STEPS, engine, stream)
    pieces = [(place.name, place.global_shape, place.index, values.numpy().copy()) for place, values in engine.held()]
    losses = []
    for _ in range(NUM_STEPS):
        losses.append(engine.step(stream.take(stream.num_micro_batches)).losses)
        keeper.attend()
    keeper.finish()
    stream.close()
    return Went(pieces, losses, stream.state(), engine.progress())


def run_tasks(world_size: int, tasks: list[Task], data: str, timeout_seconds: float = 240.0) -> dict[Task, Went]:
    """Each task on the same fresh ranks; every rank must report the same."""
    if not tasks:
        return {}
    ranks = run_ranks(world_size, on_a_rank, tasks, data, timeout_seconds=timeout_seconds)
    return {task: _together([rank[number] for rank in ranks]) for number, task in enumerate(tasks)}


def _together(ranks: list[Went]) -> Went:
    first = ranks[0]
    for rank in ranks:
        assert (rank.losses, rank.engine) == (first.losses, first.engine)
        assert rank.stream == first.stream
    return Went(_put_together([rank.tensors for rank in ranks]), first.losses, first.stream, first.engine)


def _put_together(ranks: list[list[Any]]) -> Tensors:
    """Whole tensors; where several ranks hold the same entries they must agree, and none may be left out."""
    whole: Tensors = {}
    for name, shape, index, values in (piece for rank in ranks for piece in rank):
        tensor = whole.setdefault(name, np.full(shape, np.nan, dtype=np.float32))
        corner = tensor[index]
        assert np.isnan(corner).all() or np.array_equal(corner, values), f"ranks differ in {name}"
        tensor[index] = values
    assert not any(np.isnan(tensor).any() for tensor in whole.values())
    return whole
