"""LoRA, frozen parts and layer-wise decay: the same on every layout, and what is frozen stays as it came to the bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtrain.config.depth import Part
from mmtrain.config.shapes import padded_vocab_size
from mmtrain.config.tuning import is_low_rank, part_of
from mmtrain.planner.memory import NUM_MOMENTS
from mmtrain.planner.parameters import moving_parameters
from tests.comparison import Ranks, Run, Tensors, Training, assembled, distance, put_together, trained_on_a_rank
from tests.helpers import VOCAB_SIZE, global_batch_of, run_ranks, tiny_plan

pytestmark = pytest.mark.timeout(300)
HEAD_SIZE, BLOCK, NUM_STEPS, LONG_SECONDS = 8, 8, 3, 600
BOUND, WEIGHT_BOUND = 1e-4, 1e-3  # as in tests.distributed.test_pipeline
LORA = {"lora": {"rank": 4, "alpha": 8.0}}
UPPER = {"lora": {**LORA["lora"], "stacks": ["text", "fusion"]}}  # nothing of the images' tower moves
LOWER = {"lora": {**LORA["lora"], "stacks": "vision"}}  # nothing of what stands above it does
TOWERS = {"freeze": "vision", "layer_decay": 0.7}
VISION_ALONE = {"stage_layers": (2, 4)}  # the first of two stages holds the vision layers and nothing else
RECOMPUTED = {"recompute": "full"}


def run_of(ranks: Ranks, finetune: dict[str, Any], *, under_zero: bool = True, **sections: Any) -> Run:
    """Some steps of two micro-batches."""
    train = {"global_batch_size": 2 * BLOCK, "micro_batch_size": BLOCK // ranks.dp, "learning_rate": 1e-3}
    parallel = {**ranks.parallel, **sections.pop("parallel", {})}
    zero = {"stage": 3, "gather": "per_use", **sections.pop("zero", {})}
    train = {**train, "epsilon": 1e-6}
    plan = tiny_plan(parallel=parallel, zero=zero, finetune=finetune, train=train, **sections)
    return Run(plan, num_steps=NUM_STEPS, under_zero=under_zero)


ALONE = {
    "first": replace(run_of(Ranks(), LORA), num_steps=0),
    "lora": run_of(Ranks(), LORA, under_zero=False),
    "upper": run_of(Ranks(), UPPER, under_zero=False),
    "lower": run_of(Ranks(), LOWER, under_zero=False),
    "towers": run_of(Ranks(), TOWERS, under_zero=False),
    "lora recomputed": run_of(Ranks(), LORA, under_zero=False, model=RECOMPUTED),
    "upper bf16": run_of(Ranks(), UPPER, under_zero=False, precision="bf16"),
}
DP2, TP2, PP2, DP2_PP2 = Ranks(dp=2), Ranks(tp=2), Ranks(pp=2), Ranks(dp=2, pp=2)
ON_TWO = {  # what is run, and which of `ALONE` it must equal
    "dp2 lora per_use recomputed": (run_of(DP2, LORA, model=RECOMPUTED), "lora"),
    "dp2 upper bf16": (run_of(DP2, UPPER, precision="bf16"), "upper bf16"),
    "dp2 towers ZeRO-1": (run_of(DP2, TOWERS, zero={"stage": 1}), "towers"),
    "tp2 lora sharing tokens": (run_of(Ranks(tp=2, shares_tokens=True), LORA), "lora"),
    "pp2 lora": (run_of(PP2, LORA, under_zero=False), "lora"),
    "pp2 upper recomputed, a frozen stage under ZeRO-3": (
        run_of(PP2, UPPER, parallel=VISION_ALONE, model=RECOMPUTED),
        "upper",
    ),
}
MORE_ON_TWO = {
    "tp2 lora": (run_of(TP2, LORA, under_zero=False), "lora"),
    "dp2 lora per_step": (run_of(DP2, LORA, zero={"gather": "per_step"}), "lora"),
    "dp2 lora ZeRO-1": (run_of(DP2, LORA, zero={"stage": 1}), "lora"),
    "dp2 upper per_use": (run_of(DP2, UPPER), "upper"),
    "dp2 upper bf16 ZeRO-1": (run_of(DP2, UPPER, precision="bf16", zero={"stage": 1}), "upper bf16"),
    "dp2 towers ZeRO-2": (run_of(DP2, TOWERS, zero={"stage": 2}), "towers"),
    "dp2 towers per_use recomputed": (run_of(DP2, TOWERS, model=RECOMPUTED), "towers"),
    "pp2 upper recomputed, a frozen stage": (
        run_of(PP2, UPPER, under_zero=False, parallel=VISION_ALONE, model=RECOMPUTED),
        "upper",
    ),
    "pp2 towers, a frozen stage under ZeRO-1": (
        run_of(PP2, TOWERS, parallel=VISION_ALONE, zero={"stage": 1}),
        "towers",
    ),
    "pp2 lower, a frozen last stage under ZeRO-3": (run_of(PP2, LOWER, parallel=VISION_ALONE), "lower"),
}
ON_FOUR = {  # runs without stages come first: see tests.distributed.test_pipeline
    "dp2-tp2 lora": (run_of(Ranks(dp=2, tp=2), LORA), "lora"),
    "dp2-pp2 upper per_step recomputed, a frozen stage": (
        run_of(DP2_PP2, UPPER, parallel=VISION_ALONE, model=RECOMPUTED, zero={"gather": "per_step"}),
        "upper",
    ),
    "dp2-pp2 upper per_use, a frozen stage": (run_of(DP2_PP2, UPPER, parallel=VISION_ALONE), "upper"),
    "dp2-pp2 lower ZeRO-1, a frozen last stage": (
        run_of(DP2_PP2, LOWER, parallel=VISION_ALONE, zero={"stage": 1}),
        "lower",
    ),
    "dp2-pp2 upper bf16 ZeRO-1, a frozen stage": (
        run_of(DP2_PP2, UPPER, parallel=VISION_ALONE, zero={"stage": 1}, precision="bf16"),
        "upper bf16",
    ),
    "interleaved upper recomputed, a frozen part": (
        run_of(Ranks(dp=2, pp=2, chunks=2), UPPER, model=RECOMPUTED),
        "upper",
    ),
    "tp2-pp2 lora sharing tokens": (run_of(Ranks(tp=2, pp=2, shares_tokens=True), LORA), "lora"),
}
Found = dict[str, Training]


class Nowhere:
    """A stream that stands nowhere."""

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        assert state == {}


def found_on_a_rank(runs: dict[str, Run], folder: str) -> tuple[Any, dict[str, Any]]:
    """The runs, and on the same processes what a run with LoRA saved, and what another layout took up of it."""
    from megatron.core import parallel_state

    source = tiny_plan(seed=5).model_copy(update={"run_dir": Path(folder) / "source"})
    writer, reader = (
        run.plan.model_copy(update={"run_dir": Path(folder) / "tuned"})
        for run in (
            run_of(DP2, UPPER, model={"init_from": source.run_dir}),
            run_of(PP2, UPPER, parallel=VISION_ALONE),
        )
    )
    # Runs without stages come first: see tests.distributed.test_pipeline.
    told = {"source": _goes(source, 0, 1), "saved": _goes(writer, 0, 2)}
    trained = trained_on_a_rank(runs)
    parallel_state.destroy_model_parallel()
    return trained, told | {"taken up": _goes(reader, 2, 2)}


def _goes(plan: Any, num_done: int, num_steps: int) -> dict[str, Any]:
    """What a run holds after `num_steps` steps, which it resumes or takes and saves, and the losses of the next."""
    from megatron.core import parallel_state

    from mmtrain.checkpoint.changes import Changes
    from mmtrain.checkpoint.keeper import Keeper
    from mmtrain.checkpoint.manifest import Manifest
    from mmtrain.engine.build import build_engine, join
    from mmtrain.parallel.launch import read_launch

    place = join(plan, read_launch())
    engine = build_engine(plan, place, num_pieces=VOCAB_SIZE)
    here = Manifest(0, plan.model_dump(mode="json"), {}, "", VOCAB_SIZE)
    keeper = Keeper(plan.run_dir, here, plan.checkpoint, Changes({}))
    grid, coord = place.groups.grid, place.groups.coord
    assert keeper.resume(engine, Nowhere()) == num_done
    for step in range(num_done, num_steps):
        engine.step(global_batch_of(step, plan, grid.dp, coord.dp))
    keeper.save(num_steps, engine, Nowhere())
    keeper.finish()
    pieces = [(each.name, each.global_shape, each.index, values.numpy().copy()) for each, values in engine.kept()]
    losses = engine.step(global_batch_of(num_steps, plan, grid.dp, coord.dp)).losses
    parallel_state.destroy_model_parallel()
    return {"held": pieces, "losses": losses, "moments": _held_by_optimizer(engine.states)}


def _held_by_optimizer(states: Any) -> int:
    """Elements of everything that this rank's AdamW itself keeps of weights."""
    optimizer = states.engine.optimizer.optimizer if hasattr(states, "engine") else states.optimizer
    return sum(value.numel() for state in optimizer.state.values() for value in state.values() if value.dim())


@pytest.fixture(scope="module")
def alone() -> Found:
    return assembled(run_ranks(1, trained_on_a_rank, ALONE))


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, list[Any]]:
    folder = str(tmp_path_factory.mktemp("tuned"))
    ranks = run_ranks(2, found_on_a_rank, {name: run for name, (run, _) in ON_TWO.items()}, folder)
    return assembled([trained for trained, _ in ranks]), [told for _, told in ranks]


def assert_near(found: Training, wanted: Training) -> None:
    far = distance(found, wanted, HEAD_SIZE)
    assert max(far.losses, far.grad_norm, far.gradient[0]) <= BOUND, far
    assert far.weight[0] <= WEIGHT_BOUND, far


def assert_still(found: Training, first: Training, finetune: Any) -> None:
    """What is frozen is what it was, to the bit, and what is not has moved."""
    for name, values in found.weights.items():
        if not finetune.moves(name):
            assert np.array_equal(values, first.weights[name]), name
        elif is_low_rank(name):
            assert not np.array_equal(values, first.weights[name]), name
    moved = {part_of(name) for name in found.weights if finetune.moves(name)}
    assert moved == finetune.moving


@pytest.mark.parametrize("name", [name for name in ON_TWO if "bf16" not in name])
def test_two_ranks_compute_what_one_process_computes(name: str, alone: Found, on_two: tuple[Found, list[Any]]) -> None:
    assert_near(on_two[0][name], alone[ON_TWO[name][1]])


def test_activations_computed_again_change_nothing(alone: Found) -> None:
    assert_near(alone["lora recomputed"], alone["lora"])


@pytest.mark.parametrize("name", ON_TWO)
def test_what_is_frozen_does_not_change_by_a_bit(name: str, alone: Found, on_two: tuple[Found, list[Any]]) -> None:
    assert_still(on_two[0][name], alone["first"], ON_TWO[name][0].plan.finetune)


@pytest.mark.parametrize("name", [name for name in ALONE if name != "first"])
def test_nor_does_it_on_one_process(name: str, alone: Found) -> None:
    assert_still(alone[name], alone["first"], ALONE[name].plan.finetune)


def test_bf16_is_as_near_as_bf16_allows(alone: Found, on_two: tuple[Found, list[Any]]) -> None:
    pairs = zip(on_two[0]["dp2 upper bf16"].reports, alone["upper bf16"].reports, strict=True)
    for own, other in pairs:
        assert own.losses == pytest.approx(other.losses, rel=1e-2)
        assert own.grad_norm == pytest.approx(other.grad_norm, rel=2e-2)


def whole(ranks: list[Any], which: str) -> Tensors:
    return put_together(told[which]["held"] for told in ranks)


def test_a_layout_takes_up_the_small_matrices_and_the_frozen_weights_that_another_saved(
    on_two: tuple[Found, list[Any]],
) -> None:
    saved, taken_up = whole(on_two[1], "saved"), whole(on_two[1], "taken up")
    assert saved.keys() == taken_up.keys()
    assert not [name for name, values in saved.items() if not np.array_equal(values, taken_up[name])]
    for told in on_two[1]:
        assert told["taken up"]["losses"] == pytest.approx(told["saved"]["losses"], rel=1e-5)


def test_a_checkpoint_keeps_moments_of_the_small_matrices_alone_and_frozen_weights_as_they_came(
    on_two: tuple[Found, list[Any]],
) -> None:
    saved, source = whole(on_two[1], "saved"), whole(on_two[1], "source")
    weights = {name for name in saved if "/" not in name}
    moments = {name.partition("/")[2] for name in saved if "/" in name}
    assert moments == {name for name in weights if is_low_rank(name)}
    assert weights - moments == {name for name in source if "/" not in name}
    assert all(np.array_equal(saved[name], source[name]) for name in weights - moments)


def test_the_optimizer_holds_as_many_bytes_as_the_small_matrices_ask_for(on_two: tuple[Found, list[Any]]) -> None:
    plan = run_of(Ranks(), UPPER).plan
    num_moving = moving_parameters(plan, Part.whole(plan.model), padded_vocab_size(VOCAB_SIZE))
    saved = whole(on_two[1], "saved")
    assert sum(values.size for name, values in saved.items() if "/" in name) == NUM_MOMENTS * num_moving
    assert sum(told["saved"]["moments"] for told in on_two[1]) == NUM_MOMENTS * num_moving  # ZeRO-3 on two ranks


@pytest.mark.long
@pytest.mark.timeout(2 * LONG_SECONDS)
def test_more_ways_of_two_ranks_compute_what_one_process_computes(alone: Found) -> None:
    assert_all(2, MORE_ON_TWO, alone)


@pytest.mark.long
@pytest.mark.timeout(2 * LONG_SECONDS)
def test_four_ranks_compute_what_one_process_computes(alone: Found) -> None:
    assert_all(4, ON_FOUR, alone)


def assert_all(world_size: int, runs: dict[str, tuple[Run, str]], alone: Found) -> None:
    """Each run as near as its type allows, and what is frozen as it was."""
    alike = {name: run for name, (run, _) in runs.items()}
    found = assembled(run_ranks(world_size, trained_on_a_rank, alike, timeout_seconds=LONG_SECONDS))
    for name, (run, other) in runs.items():
        if "bf16" not in name:
            assert_near(found[name], alone[other])
        assert_still(found[name], alone["first"], run.plan.finetune)
