"""What is foretold of a rank's memory: packets exactly as the model makes them, states by hand, gather by what fits."""

from typing import Any

import pytest

from mmtrain.config.depth import Part
from mmtrain.config.schema import RunConfig
from mmtrain.planner.memory import choose_gather, in_units, packet_elements, stage_bytes
from mmtrain.planner.parameters import stage_parameters
from tests.helpers import tiny_plan

VOCAB = 128


def plan_of(tp: int = 1, pp: int = 1, zero: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
    parallel = {"tp": tp, "pp": pp, **sections.pop("parallel", {})}
    return tiny_plan(parallel=parallel, zero=zero or {}, **sections)


@pytest.mark.parametrize("loss", [{}, {"vlp": 0.0}, {"mlm": 0.0, "vlp": 0.0}, {"itc": 0.0, "vlp": 0.0}, {"itc": 0.0}])
@pytest.mark.parametrize("stacks", [(2, 2, 2), (1, 1, 1), (1, 3, 1), (3, 1, 2)])
@pytest.mark.parametrize("shares", [False, True])
def test_a_packet_is_as_long_as_the_model_makes_it(
    loss: dict[str, float], stacks: tuple[int, int, int], shares: bool
) -> None:
    from mmtrain.config.shapes import num_image_tokens, sequence_unit
    from mmtrain.model.packet import PacketShape
    from mmtrain.model.rows import Layout
    from mmtrain.objectives.mixture import Mixture

    model = dict(zip(("vision_layers", "text_layers", "fusion_layers"), stacks, strict=True))
    plan = plan_of(2, 2, loss=loss, model=model, parallel={"sequence_parallel": shares})
    rows = Layout.of(Mixture(plan.loss, plan.itc, None).rows)
    unit = sequence_unit(plan.parallel)
    shape = PacketShape(plan.model, rows, num_image_tokens(plan.model, plan.parallel), plan.model.max_text_length, unit)
    assert packet_elements(plan) == shape.length * shape.width * plan.train.micro_batch_size


def states(plan: RunConfig, world_size: int, precision: str) -> dict[str, int]:
    held = stage_bytes(plan, world_size, VOCAB, precision)[0]
    return {name: getattr(held, name) for name in ("weights", "gradients", "optimizer")}


def test_states_are_cut_as_far_as_the_zero_stage_says() -> None:
    params = stage_parameters(plan_of(), Part.whole(plan_of().model), VOCAB)
    own = -(-params // 2)
    by_stage = {stage: states(plan_of(zero={"stage": stage, "gather": "auto"}), 2, "bf16") for stage in (1, 2, 3)}
    assert by_stage[1]["weights"] == by_stage[2]["weights"] == 2 * params and by_stage[3]["weights"] == 2 * own
    assert {held["optimizer"] for held in by_stage.values()} == {12 * own}
    assert by_stage[1]["gradients"] > by_stage[3]["gradients"] >= 4 * own


def test_one_data_parallel_rank_holds_all_and_gathers_nothing() -> None:
    params = stage_parameters(plan_of(), Part.whole(plan_of().model), VOCAB)
    (held,) = stage_bytes(plan_of(), 1, VOCAB, "fp32")
    assert (held.weights, held.gradients, held.optimizer, held.gathered) == (4 * params, 4 * params, 8 * params, 0)


def test_recomputation_leaves_fewer_activations() -> None:
    kept, again = (
        stage_bytes(plan_of(model={"recompute": word}), 1, VOCAB, "fp32")[0].activations for word in ("none", "full")
    )
    assert again < kept


def test_an_earlier_stage_keeps_the_activations_of_more_micro_batches() -> None:
    plan = plan_of(1, 2, train={"micro_batch_size": 4})
    even = plan.model_copy(update={"parallel": plan.parallel.model_copy(update={"stage_layers": (3, 3)})})
    first, last = stage_bytes(even, 2, VOCAB, "fp32")
    assert first.packets == 2 * last.packets > 0


def test_auto_is_per_use_with_one_stage_and_at_more_per_step_only_where_that_fits() -> None:
    assert choose_gather(plan_of(), 2, VOCAB, "fp32", 2**40).mode == "per_use"
    roomy, tight = (choose_gather(plan_of(1, 2), 4, VOCAB, "fp32", room) for room in (2**40, 2**20))
    assert (roomy.mode, tight.mode) == ("per_step", "per_use")
    assert "fits" in roomy.reason and "does not fit" in tight.reason


def test_what_is_configured_is_not_decided_anew() -> None:
    assert choose_gather(plan_of(1, 2, {"gather": "per_use"}), 4, VOCAB, "fp32", 2**40).mode == "per_use"


@pytest.mark.parametrize(
    ("count", "words"), [(512, "512 B"), (2048, "2 KiB"), (3 * 2**20, "3 MiB"), (2**41, "2048.0 GiB")]
)
def test_bytes_are_said_in_powers_of_1024(count: int, words: str) -> None:
    assert in_units(count) == words
