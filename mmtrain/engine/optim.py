"""How the optimizer moves: which weights decay, and the learning rate of each step."""

import math
from collections.abc import Iterable

import torch

from mmtrain.config.schema import TrainConfig


def learning_rate_at(step: int, train: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to its share of the peak (Loshchilov and Hutter 2017); `step` is from 0."""
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    done = (step - train.warmup_steps) / max(1, train.num_steps - train.warmup_steps)
    low = train.min_learning_rate_share
    return train.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def decays(name: str, shape: tuple[int, ...]) -> bool:
    """Whether weight decay pulls on a parameter: on matrices and embeddings, not on vectors and positions."""
    return len(shape) > 1 and not name.endswith("positions")


def build_optimizer(named: Iterable[tuple[str, torch.nn.Parameter]], train: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) over two groups, with decay and without."""
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, param in named:
        groups[decays(name, tuple(param.shape))].append(param)
    return torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": train.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=train.learning_rate,
        betas=(train.beta1, train.beta2),
        eps=train.epsilon,
        fused=True,
    )
