"""Images of several shapes, read by the real stream: any layout of one stage computes what one process computes."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.comparison import Ranks, Run, Training, distance, train_on
from tests.helpers import VOCAB_SIZE, tiny_plan

NUM_STEPS, HEAD_SIZE = 4, 8
BOUND, WEIGHT_BOUND = 1e-4, 1e-3
LAYOUTS = (Ranks(dp=2), Ranks(tp=2), Ranks(tp=2, shares_tokens=True))
SHAPES = ((24, 24), (32, 20), (20, 32))  # width, height


def write_mixed(folder: Path) -> Path:
    """Shards with images of several shapes, and a tokenizer of no more pieces than the tiny model knows."""
    from data_tools.pack import Sample, write_shard
    from tests.unit.data.made import caption_of, files_of, picture, train_tokenizer

    files = [files_of(number) | {"jpg": picture(number, SHAPES[number % 3])} for number in range(72)]
    write_shard(folder / "set-000000.tar", [Sample(f"{number:03d}", each) for number, each in enumerate(files)])
    train_tokenizer(folder / "tokenizer.model", [caption_of(number) for number in range(72)], vocab_size=VOCAB_SIZE)
    return folder


def plan_of(ranks: Ranks, folder: Path) -> Any:
    return tiny_plan(
        parallel=ranks.parallel,
        train={"micro_batch_size": 8 // ranks.dp, "learning_rate": 1e-3, "epsilon": 1e-6},
        model={"patch_size": 4, "max_text_length": 16},
        data={
            "train": str(folder),
            "tokenizer": str(folder / "tokenizer.model"),
            "max_aspect": 2.0,
            "min_crop_share": 0.8,
            "num_workers": 0,
        },
    )


@lru_cache(maxsize=1)
def _stream(plan: Any, dp: int, dp_rank: int) -> Any:
    from mmtrain.data.stream import Stream
    from mmtrain.engine.build import trims_texts

    sections = (plan.data, plan.model, plan.train, plan.mlm)
    return Stream(*sections, seed=plan.seed, dp=dp, dp_rank=dp_rank, trim=trims_texts(plan))


def batches_of(step: int, plan: Any, dp: int, dp_rank: int) -> list[Any]:
    stream = _stream(plan, dp, dp_rank)
    stream.restore(stream.state() | {"step": step})
    return stream.take(stream.num_micro_batches)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Training]:
    def run(ranks: Ranks) -> Run:
        return Run(plan_of(ranks, folder), num_steps=NUM_STEPS, batches_of=batches_of)

    one = train_on(1, {"1": run(Ranks())})
    return one | train_on(2, {str(ranks): run(ranks) for ranks in LAYOUTS})


def test_the_steps_compared_are_of_several_shapes(folder: Path) -> None:
    plan = plan_of(Ranks(), folder)
    grids = {_stream(plan, 1, 0).order.grid(step) for step in range(NUM_STEPS)}
    assert len(grids) == len(SHAPES)


@pytest.mark.parametrize("layout", [str(ranks) for ranks in LAYOUTS])
def test_steps_on_images_of_several_shapes_equal_those_of_one_process(layout: str, found: dict[str, Training]) -> None:
    apart = distance(found[layout], found["1"], HEAD_SIZE)
    assert apart.losses < BOUND and apart.grad_norm < BOUND
    assert apart.gradient[0] < BOUND, apart.gradient
    assert apart.weight[0] < WEIGHT_BOUND, apart.weight


def test_work_is_counted_by_the_patches_that_there_were(found: dict[str, Training]) -> None:
    counted = [report.flops for report in found["1"].reports]
    assert len({round(flops / max(counted), 2) for flops in counted}) > 1
    assert [report.flops for report in found["dp2"].reports] == pytest.approx(counted)
