"""How the optimizer moves: which weights decay, and the learning rate of each step."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from mmtrain.config.schema import TrainConfig

SHARE = "learning_rate_share"  # of a group of weights, over that of the heads
MASTER = ""  # the kind of a weight itself, in float32
MOMENTS = ("exp_avg", "exp_avg_sq")  # what AdamW keeps of each element


class Part(NamedTuple):
    """Elements of a weight, or of what the optimizer keeps of it, that lie on this rank."""

    name: str
    kind: str  # MASTER or one of MOMENTS
    start: int  # the first of them, counted row by row in this rank's slice of the weight
    values: torch.Tensor  # float32, one after the other: the optimizer's own memory


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


def build_optimizer(
    named: Iterable[tuple[str, torch.nn.Parameter]],
    train: TrainConfig,
    share_of: Callable[[str], float] = lambda name: 1.0,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) over groups, with decay and without, of each share of the learning rate."""
    groups: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
    for name, param in named:
        groups.setdefault((decays(name, tuple(param.shape)), share_of(name)), []).append(param)
    return torch.optim.AdamW(
        [
            {"params": params, "weight_decay": train.weight_decay if does_decay else 0.0, SHARE: share}
            for (does_decay, share), params in sorted(groups.items(), key=lambda item: item[0], reverse=True)
        ],
        lr=train.learning_rate,
        betas=(train.beta1, train.beta2),
        eps=train.epsilon,
        fused=True,
    )


def set_learning_rate(groups: Iterable[dict[str, Any]], learning_rate: float) -> None:
    """Give each group of an optimizer that `build_optimizer` made its share of the learning rate."""
    for group in groups:
        group["lr"] = learning_rate * group[SHARE]


def moments_of(optimizer: torch.optim.AdamW, master: torch.Tensor) -> dict[str, torch.Tensor]:
    """AdamW's own `step`, `exp_avg` and `exp_avg_sq` of `master`, as it would make them before its first step."""
    state = optimizer.state[master]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=master.device)
        state |= {name: torch.zeros_like(master, memory_format=torch.preserve_format) for name in MOMENTS}
    return state


def parts_of(
    optimizer: torch.optim.AdamW, master: torch.Tensor, name: str, start: int, span: slice | None = None
) -> Iterator["Part"]:
    """A weight's elements from `start` on and their moments, which lie at `span` of a flat `master` and its moments."""
    kept = {MASTER: master, **moments_of(optimizer, master)}
    for kind in (MASTER, *MOMENTS):
        flat = kept[kind].detach().view(-1)
        yield Part(name, kind, start, flat if span is None else flat[span])


def count_updates(optimizer: torch.optim.AdamW, masters: Sequence[torch.Tensor]) -> int:
    """How often the optimizer has moved the weights; all together, or not at all."""
    return max(int(moments_of(optimizer, master)["step"]) for master in masters)


def set_updates(optimizer: torch.optim.AdamW, masters: Sequence[torch.Tensor], num_updates: int) -> None:
    """Let the optimizer go on as if it had moved the weights `num_updates` times."""
    for master in masters:
        moments_of(optimizer, master)["step"].fill_(num_updates)
