"""LoRA, frozen parts and layer-wise decay: the same on every layout, and what is frozen stays as it came to the bit."""

from typing import Any

import pytest

from tests.comparison import Ranks, Run, Training, distance, train_on
from tests.helpers import tiny_plan

HEAD_SIZE, BLOCK, NUM_STEPS = 8, 8, 3
BOUND, WEIGHT_BOUND = 1e-4, 1e-3  # as in tests.distributed.test_pipeline
LORA = {"lora": {"rank": 4, "alpha": 8.0}}
UPPER = {"lora": {**LORA["lora"], "stacks": ["text", "fusion"]}}  # nothing of the images' tower moves
TOWERS = {"freeze": ["vision"], "layer_decay": 0.7}
VISION_ALONE = {"stage_layers": (2, 4)}  # the first of two stages holds the vision layers and nothing else
RECOMPUTED = {"recompute": "full"}


def run_of(ranks: Ranks, finetune: dict[str, Any], *, under_zero: bool = True, **sections: Any) -> Run:
    """Some steps of two micro-batches; key biases are left to what is frozen or decays."""
    train = {"global_batch_size": 2 * BLOCK, "micro_batch_size": BLOCK // ranks.dp, "learning_rate": 1e-3}
    parallel = {**ranks.parallel, **sections.pop("parallel", {})}
    zero = {"stage": 3, "gather": "per_use", **sections.pop("zero", {})}
    plan = tiny_plan(
        parallel=parallel, zero=zero, finetune=finetune, train={**train, "epsilon": 1e-6}, **sections
    )  # fmt: skip
    return Run(plan, num_steps=NUM_STEPS, under_zero=under_zero)


ALONE = {
    "lora": run_of(Ranks(), LORA, under_zero=False),
    "upper": run_of(Ranks(), UPPER, under_zero=False),
    "towers": run_of(Ranks(), TOWERS, under_zero=False),
    "lora recomputed": run_of(Ranks(), LORA, under_zero=False, model=RECOMPUTED),
    "upper bf16": run_of(Ranks(), UPPER, under_zero=False, precision="bf16"),
}
DP2, TP2, PP2 = Ranks(dp=2), Ranks(tp=2), Ranks(pp=2)
ON_TWO = {
    "dp2 lora per_use recomputed": (run_of(DP2, LORA, model=RECOMPUTED), "lora"),
    "dp2 lora per_step": (run_of(DP2, LORA, zero={"gather": "per_step"}), "lora"),
    "dp2 upper per_use": (run_of(DP2, UPPER), "upper"),
    "dp2 lora ZeRO-1": (run_of(DP2, LORA, zero={"stage": 1}), "lora"),
    "dp2 towers ZeRO-2": (run_of(DP2, TOWERS, zero={"stage": 2}), "towers"),
    "dp2 towers per_use recomputed": (run_of(DP2, TOWERS, model=RECOMPUTED), "towers"),
    "dp2 upper bf16": (run_of(DP2, UPPER, precision="bf16"), "upper bf16"),
    "dp2 upper bf16 ZeRO-1": (run_of(DP2, UPPER, precision="bf16", zero={"stage": 1}), "upper bf16"),
    "tp2 lora": (run_of(TP2, LORA, under_zero=False), "lora"),
    "tp2 lora sharing tokens": (run_of(Ranks(tp=2, shares_tokens=True), LORA), "lora"),
    "pp2 lora": (run_of(PP2, LORA, under_zero=False), "lora"),
    "pp2 upper recomputed, a frozen stage": (
        run_of(PP2, UPPER, under_zero=False, parallel=VISION_ALONE, model=RECOMPUTED),
        "upper",
    ),
    "pp2 upper recomputed, a frozen stage under ZeRO": (
        run_of(PP2, UPPER, parallel=VISION_ALONE, model=RECOMPUTED),
        "upper",
    ),
    "pp2 towers, a frozen stage under ZeRO-1": (
        run_of(PP2, TOWERS, parallel=VISION_ALONE, zero={"stage": 1}),
        "towers",
    ),
}


@pytest.fixture(scope="module")
def alone() -> dict[str, Training]:
    return train_on(1, ALONE)


@pytest.fixture(scope="module")
def on_two() -> dict[str, Training]:
    return train_on(2, {name: run for name, (run, _) in ON_TWO.items()})


def assert_near(found: Training, wanted: Training) -> None:
    far = distance(found, wanted, HEAD_SIZE)
    assert max(far.losses, far.grad_norm, far.gradient[0]) <= BOUND, far
    assert far.weight[0] <= WEIGHT_BOUND, far


@pytest.mark.parametrize("name", [name for name in ON_TWO if "bf16" not in name])
def test_two_ranks_compute_what_one_process_computes(
    name: str, alone: dict[str, Training], on_two: dict[str, Training]
) -> None:
    assert_near(on_two[name], alone[ON_TWO[name][1]])


def test_activations_computed_again_change_nothing(alone: dict[str, Training]) -> None:
    assert_near(alone["lora recomputed"], alone["lora"])
