"""What one layout has saved another one takes up: the same tensors, the next sample, the next losses."""

import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.resumed import NUM_STEPS, Layout, Task, Went, run_tasks
from tests.doors.launched import run_program

LONG = (
    Layout(workers=1),
    Layout(dp=2, stage=1, workers=2),
    Layout(tp=2, workers=3),
    Layout(pp=2, chunks=1, workers=1),
    Layout(dp=2, tp=2, stage=3, workers=2),
    Layout(dp=2, pp=2, stage=3, gather="per_step", workers=1),
    Layout(dp=2, tp=2, pp=2, stage=1, workers=1),
)
WRITERS, READERS = (Layout(dp=2, stage=3, workers=2), Layout(pp=2)), (Layout(workers=3), Layout(dp=2, stage=1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """200 scenes and their tokenizer."""
    folder = tmp_path_factory.mktemp("set")
    mmdata = [sys.executable, "-m", "data_tools"]
    sizes = ["--num-train", 200, "--num-heldout", 8, "--image-size", 16, "--seed", 3]
    for words in (
        ["synth", folder, *sizes],
        ["tokenizer", folder / "train", "--out", folder / "tokenizer.model", "--vocab-size", 256],
    ):
        done = run_program([*mmdata, *words])
        assert done.code == 0, done.said
    return str(folder)


def assert_goes_on(found: Went, wanted: Went) -> None:
    """`found` took up what `wanted` had when it saved, and did as that did from there."""
    assert found.tensors.keys() == wanted.tensors.keys()
    assert not [name for name in wanted.tensors if not np.array_equal(found.tensors[name], wanted.tensors[name])]
    assert found.stream == wanted.stream  # with the hash of the order of every sample delivered
    assert found.engine == wanted.engine
    for losses, expected in zip(found.losses, wanted.losses, strict=True):
        assert losses == pytest.approx(expected, rel=1e-4)


def saved_by(layouts: Sequence[Layout], folder: Path, data: str) -> dict[Layout, tuple[Task, Went]]:
    """What each layout had when it saved, and where; those of one size on the same processes."""
    found = {}
    for size in sorted({layout.world_size for layout in layouts}):
        tasks = [(each, f"{folder}/{each}", True) for each in layouts if each.world_size == size]
        found |= {task[0]: (task, went) for task, went in run_tasks(size, tasks, data, 1200).items()}
    return found


@pytest.fixture(scope="module")
def short(data: str, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Layout, Layout], tuple[Went, Went]]:
    """Four pairs of layouts on two processes and one."""
    writers = saved_by(WRITERS, tmp_path_factory.mktemp("runs"), data)
    pairs = {}
    for reader, writer in product(READERS, WRITERS):
        task, wanted = writers[writer]
        pairs[writer, reader] = (wanted, (reader, task[1], False))
    found: dict[Task, Went] = {}
    for size in (1, 2):
        found |= run_tasks(size, [task for _, task in pairs.values() if task[0].world_size == size], data)
    return {pair: (wanted, found[task]) for pair, (wanted, task) in pairs.items()}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("reader", READERS, ids=str)
@pytest.mark.parametrize("writer", WRITERS, ids=str)
def test_what_one_layout_saved_another_takes_up(
    short: dict[tuple[Layout, Layout], tuple[Went, Went]], writer: Layout, reader: Layout
) -> None:
    wanted, found = short[writer, reader]
    assert_goes_on(found, wanted)


def test_what_was_saved_had_moved(short: dict[tuple[Layout, Layout], tuple[Went, Went]]) -> None:
    for wanted, _ in short.values():
        assert wanted.engine == {"num_steps_done": 2 * NUM_STEPS, "num_updates": 2 * NUM_STEPS}
        still = [name for name, values in wanted.tensors.items() if name.endswith("weight") and not values.any()]
        assert not still
        assert {name.partition("/")[0] for name in wanted.tensors if "/" in name} == {"exp_avg", "exp_avg_sq"}


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_every_layout_takes_up_what_every_other_saved(data: str, tmp_path: Path) -> None:
    writers = saved_by(LONG, tmp_path, data)
    for reader in LONG:
        tasks = [(reader, task[1], False) for task, _ in writers.values()]
        found = run_tasks(reader.world_size, tasks, data, 2400)
        for writer, (task, wanted) in writers.items():
            went = found[reader, task[1], False]
            assert_goes_on(went, wanted)
            worst = max(
                abs(value - expected[name]) / abs(expected[name])
                for losses, expected in zip(went.losses, wanted.losses, strict=True)
                for name, value in losses.items()
            )
            print(f"{writer} -> {reader}: losses apart by {worst:.1e}", file=sys.stderr, flush=True)
