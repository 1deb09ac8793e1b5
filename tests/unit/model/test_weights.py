"""First weights: what each kind of parameter starts as. That layouts start alike is in tests/distributed."""

import math
from typing import TYPE_CHECKING

import pytest
import torch

from mmtrain.model.weights import waves
from tests.helpers import VOCAB_SIZE, tiny_plan

if TYPE_CHECKING:
    from mmtrain.engine.build import Place

STD = 0.02


def first_weights(place: "Place", seed: int = 0, **model: float | str) -> dict[str, torch.Tensor]:
    from mmtrain.engine.build import build_model

    built, _ = build_model(tiny_plan(seed=seed, model=model), place, VOCAB_SIZE)
    return {name: param.detach() for name, param in built.named_parameters()}


def test_values_depend_on_the_seed_and_the_name_alone(place: "Place") -> None:
    first, again, other = (first_weights(place, seed) for seed in (0, 0, 1))
    drawn = [name for name, weight in first.items() if weight.dim() > 1]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in drawn)
    names = [f"{stack}.stack.layers.{layer}.mlp.linear_fc1.weight" for stack in ("text", "fusion") for layer in (0, 1)]
    assert not any(torch.equal(first[one], first[two]) for one in names for two in names if one != two)


def test_norms_start_at_one_and_biases_at_zero_and_the_temperature_as_configured(place: "Place") -> None:
    for name, weight in first_weights(place).items():
        if name.endswith("bias"):
            assert not weight.any(), name
        elif "norm" in name:
            assert (weight == 1).all(), name
        elif name.endswith("log_temperature"):
            assert float(weight) == pytest.approx(math.log(tiny_plan().itc.initial_temperature))
        else:
            assert weight.std() > 0, name


def test_what_writes_to_the_residual_stream_is_smaller_by_the_root_of_twice_the_depth(place: "Place") -> None:
    weights = first_weights(place)
    num_layers = tiny_plan().model.fusion_layers
    for stack in ("vision", "text", "fusion"):
        layer = f"{stack}.stack.layers.1."
        assert float(weights[layer + "mlp.linear_fc1.weight"].std()) == pytest.approx(STD, rel=0.1)
        writes = [name for name in weights if name.startswith(layer) and name.endswith(("proj.weight", "fc2.weight"))]
        assert len(writes) == (3 if stack == "fusion" else 2)
        for name in writes:
            assert float(weights[name].std()) == pytest.approx(STD / math.sqrt(2 * num_layers), rel=0.1), name


def test_positions_of_patches_can_be_larger_than_all_else(place: "Place") -> None:
    usual, larger = first_weights(place), first_weights(place, vision_position_std=0.5)
    differing = [name for name in usual if not torch.equal(usual[name], larger[name])]
    assert differing == ["vision.embedding.positions"]
    assert float(larger[differing[0]].std()) == pytest.approx(0.5, rel=0.1)


def test_positions_on_waves_are_like_those_of_their_neighbours_and_of_no_others(place: "Place") -> None:
    usual, waved = first_weights(place), first_weights(place, vision_position_init="sincos", vision_position_std=0.5)
    assert [name for name in usual if not torch.equal(usual[name], waved[name])] == ["vision.embedding.positions"]
    found = waved["vision.embedding.positions"]
    side = math.isqrt(tiny_plan().model.num_patches)
    torch.testing.assert_close(found[-side * side :], 0.5 * waves(side, found.shape[1]))
    square_YXH = waves(6, 30).view(6, 6, 30)
    assert float(square_YXH.square().mean()) == pytest.approx(1, rel=1e-4)
    assert float(square_YXH.mean(dim=(0, 1)).abs().max()) < 1e-5
    apart = (square_YXH - square_YXH[2, 3]).norm(dim=-1)
    assert apart.flatten().argsort()[:5].sort().values.tolist() == [9, 14, 15, 16, 21]  # itself and what touches it
    torch.testing.assert_close(apart[2, 2], apart[1, 3])
    assert waves(1, 8).tolist() == [[0.0] * 8]
