"""The twin's own training step, in one process and plain PyTorch, has the losses and the gradients of the engine's."""

from dataclasses import fields
from typing import Any

import pytest

from tests.helpers import VOCAB_SIZE, global_batch_of, run_ranks, tiny_plan

NAMES = ("loss", "loss_mlm", "loss_itc", "loss_itm", "loss_lm")
PLAN = {
    "train": {"global_batch_size": 16, "micro_batch_size": 4, "gradient_clipping": 0.0},
    "itm": {"pool_size": 4},
    "itc": {"negatives": "global_batch"},
    "model": {"init_std": 0.15},
}
LAYOUTS = {"one process": (1, {}), "dp2-tp2": (4, {"tp": 2}), "pp2": (2, {"pp": 2})}


def engine_step(parallel: dict[str, int]) -> tuple[dict[str, float], float]:
    """Losses of a first optimizer step and the gradient's norm."""
    from mmtrain.engine.build import build_engine, join
    from mmtrain.parallel.launch import read_launch

    plan = tiny_plan(**PLAN, parallel=parallel)
    place = join(plan, read_launch())
    engine = build_engine(plan, place, num_pieces=VOCAB_SIZE)
    grid, coord = place.groups.grid, place.groups.coord
    report = engine.step(global_batch_of(0, plan, grid.dp, coord.dp))
    return report.losses, report.grad_norm


def twin_step() -> tuple[dict[str, float], float]:
    """The same of the twin, begun with the same first weights."""
    import torch

    from mmtrain.config.shapes import padded_vocab_size
    from mmtrain.engine.build import build_model, join
    from mmtrain.hf import VLBertConfig
    from mmtrain.hf.names import in_twin
    from mmtrain.hf.pretraining import Samples, VLBertForPreTraining
    from mmtrain.parallel.launch import read_launch

    plan = tiny_plan(**PLAN)
    model, _ = build_model(plan, join(plan, read_launch()), VOCAB_SIZE)
    config = VLBertConfig.of(plan.model, plan.itc, vocab_size=padded_vocab_size(VOCAB_SIZE), num_pieces=VOCAB_SIZE)
    twin = VLBertForPreTraining(config).train()
    missing = twin.load_state_dict({in_twin(name): param.data for name, param in model.named_parameters()})
    assert not missing.missing_keys and not missing.unexpected_keys
    batches = global_batch_of(0, plan, 1, 0)
    columns = {field.name: torch.cat([getattr(batch, field.name) for batch in batches]) for field in fields(Samples)}
    found = twin(Samples(**columns), pool_size=plan.itm.pool_size, weights=plan.loss)
    found.loss.backward()
    norm = torch.stack([param.grad.norm() for param in twin.parameters() if param.grad is not None]).norm()
    return {name: float(found[name]) for name in NAMES}, float(norm)


@pytest.fixture(scope="module")
def twin() -> tuple[dict[str, float], float]:
    return run_ranks(1, twin_step)[0]


@pytest.mark.parametrize(
    "layout", ["one process", *(pytest.param(name, marks=pytest.mark.long) for name in ("dp2-tp2", "pp2"))]
)
def test_one_step_of_the_twin_has_the_engine_s_losses_and_gradient(twin: Any, layout: str) -> None:
    num_ranks, parallel = LAYOUTS[layout]
    for losses, norm in run_ranks(num_ranks, engine_step, parallel):
        assert {name: losses[name] for name in NAMES} == pytest.approx(twin[0], rel=1e-4)
        assert norm == pytest.approx(twin[1], rel=1e-4)
