"""A count of what collectives move, by group, by who asked, by kind and by type of number.

It stands where every library's call ends, at the process group, so nothing is counted twice and nothing is missed.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

# The process group's method, and which of its arguments holds the whole tensor: what came together, or was reduced.
WHOLE = {
    "allreduce": ("all_reduce", 0),
    "reduce": ("reduce", 0),
    "broadcast": ("broadcast", 0),
    "allgather": ("all_gather", 0),
    "_allgather_base": ("all_gather", 0),
    "all_gather_single": ("all_gather", 0),
    "reduce_scatter": ("reduce_scatter", 1),
    "_reduce_scatter_base": ("reduce_scatter", 1),
    "reduce_scatter_single": ("reduce_scatter", 1),
    "send": ("send", 0),
}


PASSING_ON = ("torch", "typing_extensions", "contextlib", "tests")  # packages that only hand a call on


@dataclass(frozen=True)
class Kind:
    """What is counted apart from the rest."""

    group: str  # the axis that the ranks lie along
    asker: str  # the package that called torch
    collective: str
    dtype: torch.dtype


Moved = Counter[Kind]  # elements of whole tensors: gathered by all ranks together, or reduced over them


@dataclass(frozen=True)
class Traffic:
    """What the collectives of one rank did."""

    moved: Moved = field(default_factory=Counter)
    calls: Counter[Kind] = field(default_factory=Counter)


@contextlib.contextmanager
def counted(groups: Any) -> Iterator[Traffic]:
    """Count this rank's collectives while it lasts; those over a single rank move nothing."""
    traffic = Traffic()
    names = {getattr(groups, name).group_name: name for name in ("data", "tensor", "model", "pipe")}
    own = {name: method for name, method in vars(dist.ProcessGroup).items() if name in WHOLE}
    for name in own:
        setattr(dist.ProcessGroup, name, _counting(getattr(dist.ProcessGroup, name), *WHOLE[name], names, traffic))
    try:
        yield traffic
    finally:
        for name, method in own.items():
            setattr(dist.ProcessGroup, name, method)


def _counting(method: Callable, collective: str, place: int, names: dict[str, str], traffic: Traffic) -> Callable:
    def call(group: dist.ProcessGroup, *given: Any, **named: Any) -> Any:
        if group.size() > 1:
            tensors = _tensors(given[place])
            kinds = [Kind(names.get(group.group_name, "world"), _asker(), collective, each.dtype) for each in tensors]
            for kind, tensor in zip(kinds, tensors, strict=True):
                traffic.moved[kind] += tensor.numel()
            traffic.calls.update(set(kinds))
        return method(group, *given, **named)

    return call


def _tensors(given: Any) -> list[torch.Tensor]:
    return [given] if isinstance(given, torch.Tensor) else [tensor for part in given for tensor in _tensors(part)]


def _asker() -> str:
    """The first package above torch in the calls that led here."""
    frame = sys._getframe(2)
    while frame is not None:
        package = frame.f_globals.get("__name__", "").split(".")[0]
        if package not in PASSING_ON:
            return package
        frame = frame.f_back
    return "nobody"


GATHERED, REDUCED = ("all_gather", "broadcast"), ("reduce_scatter", "all_reduce", "reduce")


def of_zero(counts: Counter[Kind], collectives: tuple[str, ...]) -> int:
    """Elements, or calls, by which ZeRO moved weights or gradients among the ranks of one stage."""
    return sum(
        count
        for kind, count in counts.items()
        if (kind.group, kind.asker) == ("data", "deepspeed") and kind.collective in collectives
    )


def moved_on_a_rank(plans: dict[Any, Any], num_steps: int) -> dict[Any, list[tuple[float, float, Traffic]]]:
    """Of each step of each plan, which share one grid: what ZeRO gathered and reduced, in units of this stage's
    parameters, and everything that was counted."""
    from mmtrain.engine.build import build_engine, join
    from mmtrain.parallel.launch import read_launch
    from tests.helpers import VOCAB_SIZE, global_batch_of

    place = join(next(iter(plans.values())), read_launch())
    grid, coord = place.groups.grid, place.groups.coord
    found: dict[Any, list[tuple[float, float, Traffic]]] = {}
    for key, plan in plans.items():
        engine = build_engine(plan, place, num_pieces=VOCAB_SIZE)
        num_params = sum(getattr(param, "ds_numel", param.numel()) for param in engine.states.model.parameters())
        found[key] = []
        for step in range(num_steps):
            batches = global_batch_of(step, plan, grid.dp, coord.dp)
            with counted(place.groups) as traffic:
                engine.step(batches)
            ratios = (of_zero(traffic.moved, kinds) / num_params for kinds in (GATHERED, REDUCED))
            found[key].append((*ratios, traffic))
    return found
