"""What a layout computes, whole: losses, gradients and weights by name, and how far two layouts are apart."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.helpers import VOCAB_SIZE, global_batch_of, run_ranks

Parts = list[tuple[str, tuple[int, ...], tuple[slice, ...], np.ndarray]]  # name, whole shape, where, values
Tensors = dict[str, np.ndarray]
BatchesOf = Callable[[int, Any, int, int], list[Any]]  # step, plan, dp, dp rank -> this rank's micro-batches
# Queries x keys change by the same amount for every key of a row when the key's bias does, and softmax takes no notice.
KEY_BIASES = {"linear_qkv.bias": (3, 1), "linear_kv.bias": (2, 0)}  # how many rows of heads lie interleaved, and which


@dataclass(frozen=True)
class Ranks:
    """How many ranks along each axis, whether tensor-parallel ones share the tokens, and parts of the depth on each."""

    dp: int = 1
    tp: int = 1
    pp: int = 1
    shares_tokens: bool = False
    chunks: int = 1

    @property
    def world_size(self) -> int:
        """Processes that it takes."""
        return self.dp * self.tp * self.pp

    @property
    def parallel(self) -> dict[str, Any]:
        """The section `parallel` of a plan."""
        return {
            "tp": self.tp,
            "pp": self.pp,
            "sequence_parallel": self.shares_tokens,
            "chunks_per_stage": self.chunks,
        }

    def __str__(self) -> str:
        axes = [f"{name}{size}" for name, size in (("dp", self.dp), ("tp", self.tp), ("pp", self.pp)) if size > 1]
        more = ["sp"] * self.shares_tokens + [f"{self.chunks}chunks"] * (self.chunks > 1)
        return "-".join([*axes, *more]) or "1"


@dataclass(frozen=True)
class Training:
    """One run of some steps: reports as every rank had them, and whole tensors."""

    reports: list[Any]
    gradients: Tensors  # of the first step, before clipping
    weights: Tensors  # after the last


@dataclass(frozen=True)
class Distance:
    """How far a run is from another; relative ones are shares of 1."""

    losses: float  # largest relative difference of any loss at any step
    grad_norm: float  # of the gradient norm
    gradient: tuple[float, str]  # largest difference in a tensor by the tensor's largest entry, and the tensor's name
    weight: tuple[float, str]
    key_bias: float  # largest difference between two key biases, which neither gradient knows of; absolute


@dataclass(frozen=True)
class Run:
    """What is to be run: a plan, on samples made by hand, its states held as ZeRO holds them also where dp is 1."""

    plan: Any
    num_steps: int = 5
    batches_of: BatchesOf = global_batch_of
    under_zero: bool = True


def trained_on_a_rank(runs: dict[Any, Run]) -> dict[Any, tuple[list[Any], Parts, Parts]]:
    """This rank's reports and parts of the tensors of each run; the grid is cut anew where the next needs another."""
    from megatron.core import parallel_state

    from mmtrain.engine.build import build_engine, join
    from mmtrain.engine.zero import ZeroStates
    from mmtrain.parallel.launch import read_launch

    place, cut, found = None, None, {}
    for key, run in runs.items():
        parallel = run.plan.parallel
        if cut != (parallel.tp, parallel.pp):
            if place is not None:
                parallel_state.destroy_model_parallel()  # the processes stay joined
            place, cut = join(run.plan, read_launch()), (parallel.tp, parallel.pp)
        holder = ZeroStates if run.under_zero else None
        engine = build_engine(run.plan, place, num_pieces=VOCAB_SIZE, holder=holder)
        found[key] = _trained(run, engine, place.groups)
    return found


def _trained(run: Run, engine: Any, groups: Any) -> tuple[list[Any], Parts, Parts]:
    reports, gradients = [], []
    for step in range(run.num_steps):
        batches = run.batches_of(step, run.plan, groups.grid.dp, groups.coord.dp)
        losses = engine.accumulate(batches)
        if step == 0:
            gradients = _parts(engine.gradients())
        reports.append(engine.update(batches, losses))
    weights = ((place, values) for place, values in engine.kept() if "/" not in place.name)
    return reports, gradients, _parts(weights)


def _parts(yielded: Iterable[tuple[Any, Any]]) -> Parts:
    return [(place.name, place.global_shape, place.index, tensor.numpy().copy()) for place, tensor in yielded]


def train_on(world_size: int, runs: dict[Any, Run]) -> dict[Any, Training]:
    """Each run on the same fresh ranks, one after the other; every rank must report the same."""
    return assembled(run_ranks(world_size, trained_on_a_rank, runs))


def assembled(ranks: list[dict[Any, tuple[list[Any], Parts, Parts]]]) -> dict[Any, Training]:
    """The runs as a whole, of what each rank had of them."""
    found = {}
    for key in ranks[0]:
        reports, gradients, weights = zip(*(rank[key] for rank in ranks), strict=True)
        assert all(other == reports[0] for other in reports), f"ranks report different steps of {key}"
        found[key] = Training(reports[0], put_together(gradients), put_together(weights))
    return found


def put_together(ranks: Iterable[Parts]) -> Tensors:
    """Whole tensors of every rank's parts, which must tile them: no entry twice, none left out."""
    whole: Tensors = {}
    for parts in ranks:
        for name, shape, index, values in parts:
            tensor = whole.setdefault(name, np.full(shape, np.nan, dtype=np.float32))
            assert np.isnan(tensor[index]).all(), f"two ranks brought the same entries of {name}"
            tensor[index] = values
    missing = [name for name, tensor in whole.items() if np.isnan(tensor).any()]
    assert not missing, f"entries that no rank brought, or that are not numbers: {missing}"
    return whole


def distance(found: Training, wanted: Training, head_size: int) -> Distance:
    """How far `found` is from `wanted`."""
    pairs = list(zip(found.reports, wanted.reports, strict=True))
    losses = [apart(own.losses[name], value) for own, other in pairs for name, value in other.losses.items()]
    return Distance(
        losses=max(losses),
        grad_norm=max(apart(own.grad_norm, other.grad_norm) for own, other in pairs),
        gradient=farthest(found.gradients, wanted.gradients, head_size),
        weight=farthest(found.weights, wanted.weights, head_size),
        key_bias=max(
            float(np.abs(_key_bias(name, found.weights[name], head_size) - _key_bias(name, bias, head_size)).max())
            for name, bias in wanted.weights.items()
            if is_key_bias(name)
        ),
    )


def is_key_bias(name: str) -> bool:
    """Whether a tensor holds key biases beside others."""
    return name.endswith(tuple(KEY_BIASES))


def apart(value: float, wanted: float) -> float:
    """Relative difference."""
    return abs(value - wanted) / max(abs(wanted), 1e-30)


def farthest(found: Tensors, wanted: Tensors, head_size: int) -> tuple[float, str]:
    """The tensor that differs most by its largest entry, key biases left out; both must have the same names."""
    assert found.keys() == wanted.keys(), f"one has no {sorted(found.keys() ^ wanted.keys())}"
    return max((_apart_in(name, found[name], wanted[name], head_size), name) for name in wanted)


def _apart_in(name: str, found: np.ndarray, wanted: np.ndarray, head_size: int) -> float:
    counts = np.ones(wanted.shape, dtype=bool)
    if is_key_bias(name):
        _key_bias(name, counts, head_size)[...] = False
    largest = float(np.abs(wanted).max())
    difference = float((np.abs(found - wanted) * counts).max())
    return difference / largest if largest else difference


def _key_bias(name: str, bias: np.ndarray, head_size: int) -> np.ndarray:
    """The key rows of a bias that holds queries, keys and values head by head; a view."""
    ((interleaved, which),) = (place for end, place in KEY_BIASES.items() if name.endswith(end))
    return bias.reshape(-1, interleaved, head_size)[:, which]
