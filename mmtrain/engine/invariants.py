"""What must be the same on every rank, looked at before an optimizer step; a rank that differs is named."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist

from mmtrain.config.schema import RunConfig
from mmtrain.model.chunks import StageModel
from mmtrain.parallel.collectives import sum_floats
from mmtrain.parallel.groups import Groups


class InvariantError(Exception):
    """Ranks disagree, or a gradient is not finite; the message says which ranks and on what."""


class Invariants:
    """Same step and config on all ranks, equal replicas along dp and tp, equal negatives along pp, finite gradients."""

    def __init__(self, plan: RunConfig, groups: Groups, device: torch.device) -> None:
        self.plan, self.groups, self.device = plan, groups, device
        self.config_digest = _digest(json.dumps(plan.model_dump(mode="json", exclude={"run_dir"})).encode())

    def are_due(self, num_steps_done: int) -> bool:
        """Whether the step after `num_steps_done` others is to be checked."""
        return self.plan.invariants.every_step or num_steps_done < self.plan.invariants.first_steps

    def check(self, num_steps_done: int, model: StageModel, gradients: Iterable[torch.Tensor]) -> None:
        """InvariantError on every rank where any two that must agree do not. Every rank calls it at the same step."""
        self._agree("step", num_steps_done, dist.group.WORLD)
        self._agree("config", self.config_digest, dist.group.WORLD)
        self._agree("replicated weights", self._digest_of(model, uncut_only=True), self.groups.tensor)
        if self.plan.zero.stage < 3:
            self._agree("weights", self._digest_of(model, uncut_only=False), self.groups.data)
        if model.last_draw is not None or self.groups.grid.pp > 1:
            self._agree("hard negatives", _digest(_bytes(model.last_draw)), self.groups.pipe)
        bad = float(sum(not bool(torch.isfinite(gradient).all()) for gradient in gradients))
        if sum_floats([bad], dist.group.WORLD, self.device)[0]:
            raise InvariantError(
                f"step {num_steps_done + 1}: {bad:g} gradients of this rank, or some elsewhere, are not finite"
            )

    def _agree(self, what: str, own: Any, group: dist.ProcessGroup) -> None:
        """None stands for a rank that has nothing to say of it."""
        if group.size() == 1:
            return
        found: list[Any] = [None] * group.size()
        dist.all_gather_object(found, own, group=group)
        said = {dist.get_global_rank(group, place): other for place, other in enumerate(found) if other is not None}
        if len(set(said.values())) > 1:
            raise InvariantError(f"the ranks do not agree on their {what}: {said}")

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
