"""Weights saved by one layout load bit for bit into any other."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import VOCAB_SIZE, run_ranks, tiny_plan

Weights = dict[str, torch.Tensor]
Rectangle = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], torch.Tensor]  # whole shape, offset, shape, values


def train_and_save(checkpoints: str, tp: int, dp: int) -> dict[str, Rectangle]:
    """Save after two steps; this rank's whole part of every weight, asked of ZeRO one by one."""
    from deepspeed.utils import safe_get_full_fp32_param

    from mmtrain.checkpoint.changes import Changes
    from mmtrain.checkpoint.keeper import Keeper
    from mmtrain.checkpoint.manifest import Manifest
    from mmtrain.engine.build import build_engine, join
    from mmtrain.parallel.launch import read_launch
    from tests.helpers import global_batch_of

    plan = tiny_plan(parallel={"tp": tp}, zero={"stage": 3}, train={"micro_batch_size": 8 // dp})
    place = join(plan, read_launch())
    engine = build_engine(plan, place, num_pieces=VOCAB_SIZE)
    for step in range(2):
        engine.step(global_batch_of(step, plan, dp, place.groups.coord.dp))
    here = Manifest(0, {}, {}, tokenizer_sha256="", num_pieces=VOCAB_SIZE)
    keeper = Keeper(Path(checkpoints), here, plan.checkpoint, Changes({}))
    keeper.save(2, engine, _Nowhere())
    keeper.finish()
    parts = {name: safe_get_full_fp32_param(param) for name, param in engine.states.model.named_parameters()}
    return {name: _rectangle(engine.slices[name], part) for name, part in parts.items()}


class _Nowhere:
    """A stream that stands nowhere."""

    def state(self) -> dict[str, Any]:
        return {}


def _rectangle(place: Any, part: torch.Tensor) -> Rectangle:
    return place.global_shape, place.offset, place.shape, part.detach().clone().cpu().numpy()


def load_into(folders: list[str], tp: int) -> list[dict[str, Rectangle]]:
    """This rank's first weights, and its weights after loading each of `folders`."""
    from mmtrain.checkpoint.load import load_tensors
    from mmtrain.engine.build import build_model, join
    from mmtrain.parallel.launch import read_launch

    place = join(plan := tiny_plan(parallel={"tp": tp}), read_launch())
    model, slices = build_model(plan, place, VOCAB_SIZE)
    found = []
    for folder in [None, *folders]:
        if folder:
            load_tensors(Path(folder), {slices[name]: param.data for name, param in model.named_parameters()})
        found.append({name: _rectangle(slices[name], param) for name, param in model.named_parameters()})
    return found


def on_two_ranks(checkpoints: str, other: str) -> tuple[dict[str, Rectangle], list[dict[str, Rectangle]]]:
    """Train and save as dp 2, then as tp 2 load that and `other`: one start of processes for both."""
    from megatron.core import parallel_state

    trained = train_and_save(checkpoints, tp=1, dp=2)
    parallel_state.destroy_model_parallel()  # the processes stay joined, their groups are cut anew
    return trained, load_into([f"{checkpoints}/checkpoints/step-00000002", other], tp=2)


def put_together(ranks: list[dict[str, Rectangle]]) -> Weights:
    """Whole tensors of every rank's rectangles; where they overlap they must agree, and nothing may be left out."""
    whole: Weights = {}
    for rank in ranks:
        for name, (global_shape, offset, shape, part) in rank.items():
            tensor = whole.setdefault(name, torch.full(global_shape, torch.nan))
            corner = tensor[tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))]
            values = torch.from_numpy(part).reshape(shape)
            assert corner.isnan().all() or torch.equal(corner, values), f"ranks differ in {name}"
            corner.copy_(values)
    assert not any(tensor.isnan().any() for tensor in whole.values())
    return whole


def assert_equal(found: Weights, wanted: Weights) -> None:
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.fixture(scope="module")
def saves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each layout held when it saved, and what each held after it loaded."""
    folder = tmp_path_factory.mktemp("saves")
    of_four = put_together(run_ranks(4, train_and_save, str(folder / "four"), 2, 2))
    four, two = (str(folder / name / "checkpoints" / "step-00000002") for name in ("four", "two"))
    answers = run_ranks(2, on_two_ranks, str(folder / "two"), four)
    of_two = put_together([trained for trained, _ in answers])
    first_by_tp, two_by_tp, four_by_tp = (
        put_together([loaded[number] for _, loaded in answers]) for number in range(3)
    )
    (alone,) = run_ranks(1, load_into, [two, four], 1)
    first_alone, two_alone, four_alone = (put_together([loaded]) for loaded in alone)
    return {
        "saved": {"dp2": of_two, "dp2-tp2": of_four},
        "tp2": {"first": first_by_tp, "dp2": two_by_tp, "dp2-tp2": four_by_tp},
        "one process": {"first": first_alone, "dp2": two_alone, "dp2-tp2": four_alone},
    }


@pytest.mark.parametrize("reader", ["one process", "tp2"])
@pytest.mark.parametrize("writer", ["dp2", "dp2-tp2"])
def test_weights_of_one_layout_load_bit_for_bit_into_another(saves: dict[str, Any], writer: str, reader: str) -> None:
    assert_equal(saves[reader][writer], saves["saved"][writer])


def test_training_moved_every_kind_of_weight_before_it_was_saved(saves: dict[str, Any]) -> None:
    first, trained = saves["one process"]["first"], saves["saved"]["dp2-tp2"]
    still = [name for name in first if torch.equal(first[name], trained[name])]
    assert not [name for name in still if name.endswith("weight")], still


def test_first_weights_are_the_same_on_every_layout(saves: dict[str, Any]) -> None:
    assert_equal(saves["tp2"]["first"], saves["one process"]["first"])
