"""The learning rate of each step, and which weights decay."""

import math

import pytest
import torch

from mmtrain.config.schema import TrainConfig
from mmtrain.engine.optim import build_optimizer, decays, learning_rate_at, set_learning_rate

TRAIN = TrainConfig(num_steps=110, warmup_steps=10, learning_rate=2.0, min_learning_rate_share=0.1)


def test_the_warm_up_rises_linearly_to_the_peak() -> None:
    assert [learning_rate_at(step, TRAIN) for step in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])


def test_the_cosine_falls_to_its_share_of_the_peak_and_stays() -> None:
    assert learning_rate_at(10, TRAIN) == pytest.approx(2.0)
    assert learning_rate_at(60, TRAIN) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert learning_rate_at(35, TRAIN) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))))
    assert learning_rate_at(110, TRAIN) == learning_rate_at(500, TRAIN) == pytest.approx(0.2)


def test_without_a_warm_up_the_first_step_has_the_peak() -> None:
    assert learning_rate_at(0, TrainConfig(warmup_steps=0, learning_rate=0.5)) == 0.5


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("vision.stack.layers.0.mlp.linear_fc1.weight", (4, 4), True),
        ("text.embedding.tokens.weight", (9, 4), True),
        ("text.embedding.positions", (3, 4), False),
        ("vision.final_norm.weight", (4,), False),
        ("contrast.log_temperature", (1,), False),
    ],
)
def test_only_matrices_and_embeddings_decay(name: str, shape: tuple[int, ...], wanted: bool) -> None:
    assert decays(name, shape) is wanted


def test_the_optimizer_has_one_group_with_decay_and_one_without() -> None:
    linear = torch.nn.Linear(2, 2)
    named = [("linear.weight", linear.weight), ("linear.bias", linear.bias)]
    first, second = build_optimizer(named, TrainConfig(weight_decay=0.3)).param_groups
    assert (first["weight_decay"], second["weight_decay"]) == (0.3, 0.0)
    assert first["params"][0].shape == (2, 2) and second["params"][0].shape == (2,)


def test_each_group_moves_by_its_share_of_the_learning_rate() -> None:
    linear = torch.nn.Linear(2, 2)
    named = [("low.weight", linear.weight), ("high.bias", linear.bias)]
    groups = build_optimizer(named, TRAIN, lambda name: 0.25 if name.startswith("low") else 1.0).param_groups
    set_learning_rate(groups, 2.0)
    assert [(group["lr"], len(group["params"])) for group in groups] == [(0.5, 1), (2.0, 1)]
