"""What the plan says of ranks is so: parameters and states as held; few micro-batches and few objectives run."""

from typing import Any

import pytest

from tests.helpers import VOCAB_SIZE, run_ranks, tiny_plan, train_steps

ONE_MICRO_BATCH = {"train": {"global_batch_size": 8, "micro_batch_size": 8}}
FEW_OBJECTIVES = {"contrast alone": {"mlm": 0.0, "vlp": 0.0}, "masked words alone": {"itc": 0.0, "vlp": 0.0}}


def reports_of_few(pp: int) -> dict[str, Any]:
    """One micro-batch a step, then one objective at a time."""
    from mmtrain.engine.build import join
    from mmtrain.parallel.launch import read_launch

    parallel = {"parallel": {"pp": pp}}
    place = join(tiny_plan(**parallel), read_launch())
    found = {"one micro-batch": train_steps(tiny_plan(**parallel, **ONE_MICRO_BATCH), 2, place)}
    return found | {
        name: train_steps(tiny_plan(**parallel, loss=loss), 2, place) for name, loss in FEW_OBJECTIVES.items()
    }


def test_fewer_micro_batches_than_stages_and_single_objectives_run_as_on_one_process() -> None:
    (alone,), staged = run_ranks(1, reports_of_few, 1), run_ranks(2, reports_of_few, 2)
    for name, expected in alone.items():
        for report, wanted in zip(staged[0][name], expected, strict=True):
            assert report.losses == pytest.approx(wanted.losses, rel=1e-4), name
            assert report.grad_norm == pytest.approx(wanted.grad_norm, rel=1e-4), name


def parameters_and_estimates() -> list[tuple[int, int]]:
    """Of each part of the depth under tp 2: what is built, and what the plan says."""
    from mmtrain.config.depth import Part
    from mmtrain.engine.build import join
    from mmtrain.model.vlm import VisionLanguageModel
    from mmtrain.parallel.launch import read_launch
    from mmtrain.planner.parameters import stage_parameters

    found = []
    for changes in ({}, {"vision_hidden_size": 48, "text_hidden_size": 16, "mlp_ratio": 2.5}):
        plan = tiny_plan(parallel={"tp": 2}, model=changes)
        if not found:
            join(plan, read_launch())
        whole = Part.whole(plan.model)
        for start in range(whole.stop):
            part = Part(start, min(start + 2, whole.stop), whole.sizes)
            built = sum(param.numel() for param in VisionLanguageModel(plan, 128, part).parameters())
            found.append((built, stage_parameters(plan, part, 128)))
    return found


def test_tensor_parallel_ranks_hold_the_parameters_that_were_counted() -> None:
    for counted in run_ranks(2, parameters_and_estimates):
        assert [built for built, _ in counted] == [planned for _, planned in counted]


def held_and_estimated(stage: int, gather: str) -> tuple[dict[str, int], Any]:
    """Bytes that a rank of two data-parallel ones holds between steps, and the plan's."""
    from mmtrain.engine.build import build_engine, join
    from mmtrain.parallel.launch import read_launch
    from mmtrain.planner.memory import stage_bytes
    from tests.helpers import global_batch_of

    plan = tiny_plan(zero={"stage": stage, "gather": gather}, train={"micro_batch_size": 4})
    place = join(plan, read_launch())
    engine = build_engine(plan, place, num_pieces=VOCAB_SIZE)
    engine.step(global_batch_of(0, plan, 2, place.groups.coord.dp))
    optimizer = engine.states.engine.optimizer
    moments = [value for state in optimizer.optimizer.state.values() for value in state.values() if value.dim()]
    masters = optimizer.fp32_partitioned_groups_flat if stage == 3 else optimizer.single_partition_of_fp32_groups
    own = {param.untyped_storage().data_ptr(): param.untyped_storage().nbytes() for param in weights_of(engine, stage)}
    shared = {master.data_ptr() for master in masters} & set(own)
    held = {
        "weights": sum(own.values()),
        "optimizer": sum(tensor.nbytes for tensor in [*moments, *masters] if tensor.data_ptr() not in shared),
    }
    return held, stage_bytes(plan, 2, 128, "fp32")[0]


def weights_of(engine: Any, stage: int) -> list[Any]:
    return [getattr(param, "ds_tensor", param) if stage == 3 else param for param in engine.states.model.parameters()]


@pytest.mark.parametrize("stage", [1, 3])
def test_states_are_held_as_the_plan_says(stage: int) -> None:
    for held, planned in run_ranks(2, held_and_estimated, stage, "auto" if stage < 3 else "per_use"):
        # Partitions are padded to whole elements a rank, and flat groups to a few more.
        assert held["weights"] == pytest.approx(planned.weights, rel=0.02)
        assert held["optimizer"] == pytest.approx(planned.optimizer, rel=0.02)
