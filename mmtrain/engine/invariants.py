"""What must be the same on every rank, looked at before an optimizer step; a rank that differs is named."""

import hashlib
import json
from typing import Any

import torch
import torch.distributed as dist

from mmtrain.config.schema import RunConfig
from mmtrain.model.chunks import StageModel
from mmtrain.parallel.groups import Groups
from mmtrain.parallel.launch import RunStopped

AXES = ("pp", "dp", "tp")
ALIKE_ALONG = {  # along which axes of the grid the ranks must hold the same
    "step": AXES,
    "config": AXES,
    "replicated weights": ("tp",),
    "weights": ("dp",),
    "hard negatives": ("pp", "tp"),
}


class InvariantError(RunStopped):
    """Ranks disagree; the message says which and on what."""


class Invariants:
    """Same step and config on all ranks, equal replicas and negatives."""

    def __init__(self, plan: RunConfig, groups: Groups) -> None:
        self.plan, self.groups = plan, groups
        self.config_digest = _digest(json.dumps(plan.model_dump(mode="json", exclude={"run_dir"})).encode())

    def are_due(self, num_steps_done: int) -> bool:
        """Whether the step after `num_steps_done` others is to be checked."""
        return self.plan.invariants.every_step or num_steps_done < self.plan.invariants.first_steps

    def check(self, num_steps_done: int, model: StageModel) -> None:
        """InvariantError on every rank where any two that must agree do not. Every rank calls it at the same step.

        Each rank hears what all others found, so that all of them stop, also those that nothing is wrong with.
        """
        own = {
            "step": num_steps_done,
            "config": self.config_digest,
            "replicated weights": self._digest_of(model, uncut_only=True),
            "weights": self._digest_of(model, uncut_only=False) if self.plan.zero.stage < 3 else None,
            "hard negatives": _digest(_bytes(model.last_draw)),
        }
        found = self._found_everywhere(own)
        faults = [self._difference(what, axes, [said[what] for said in found]) for what, axes in ALIKE_ALONG.items()]
        if any(faults):
            sentences = "; ".join(fault for fault in faults if fault)
            raise InvariantError(f"step {num_steps_done + 1} was not taken: {sentences}")

    def _found_everywhere(self, own: dict[str, Any]) -> list[dict[str, Any]]:
        found = [own] * self.groups.grid.world_size
        if len(found) > 1:
            dist.all_gather_object(found, own)
        return found

    def _difference(self, what: str, axes: tuple[str, ...], said: list[Any]) -> str | None:
        """What the ranks say where they differ; None in `said` stands for a rank that has nothing to say of it."""
        alike: dict[tuple[int, ...], dict[int, Any]] = {}
        for rank, value in enumerate(said):
            coord = self.groups.grid.coord(rank)
            others = tuple(getattr(coord, axis) for axis in AXES if axis not in axes)
            if value is not None:
                alike.setdefault(others, {})[rank] = value
        for ranks in alike.values():
            if len(set(ranks.values())) > 1:
                return f"the ranks do not agree on their {what}: {ranks}"
        return None

    def _digest_of(self, model: StageModel, *, uncut_only: bool) -> str | None:
        """Of this rank's weights, or of those that tp does not cut; of ZeRO-3's part where it keeps one."""
        params = [
            self._own_part(param)
            for param in model.parameters()
            if not (uncut_only and getattr(param, "tensor_model_parallel", False))
        ]
        return _digest(b"".join(_bytes(param) or b"" for param in params))

    def _own_part(self, param: torch.nn.Parameter) -> torch.Tensor:
        """What this rank holds of a weight; the padding of ZeRO-3's last part is whatever the memory held before."""
        part = getattr(param, "ds_tensor", None)
        if part is None:
            return param
        num_before = self.groups.coord.dp * part.numel()
        return part.flatten()[: max(0, param.ds_numel - num_before)]


def _bytes(tensor: torch.Tensor | None) -> bytes | None:
    return None if tensor is None else tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _digest(content: bytes | None) -> str | None:
    return None if content is None else hashlib.blake2b(content, digest_size=8).hexdigest()
