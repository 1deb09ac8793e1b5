"""What must be the same on every rank, looked at before an optimizer step; a rank that differs is named."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist

from mmtrain.config.schema import RunConfig
from mmtrain.model.chunks import StageModel
from mmtrain.parallel.groups import Groups
from mmtrain.parallel.launch import RunStopped


class InvariantError(RunStopped):
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
        """InvariantError on every rank of the run, the same, where anything is amiss on any of them."""
        faults = [
            self._disagreement("step", num_steps_done, dist.group.WORLD),
            self._disagreement("config", self.config_digest, dist.group.WORLD),
            self._disagreement("replicated weights", self._digest_of(model, uncut_only=True), self.groups.tensor),
        ]
        if self.plan.zero.stage < 3:
            faults.append(self._disagreement("weights", self._digest_of(model, uncut_only=False), self.groups.data))
        if model.last_draw is not None or self.groups.grid.pp > 1:
            faults.append(self._disagreement("hard negatives", _digest(_bytes(model.last_draw)), self.groups.pipe))
        num_bad = sum(not bool(torch.isfinite(gradient).all()) for gradient in gradients)
        if num_bad:
            faults.append(f"{num_bad} gradients are not finite")
        self._raise_everywhere(num_steps_done, [fault for fault in faults if fault])

    @staticmethod
    def _disagreement(what: str, own: Any, group: dist.ProcessGroup) -> str | None:
        """What the ranks of `group` say where they differ. None of `own` stands for a rank that has nothing to say."""
        if group.size() == 1:
            return None
        found: list[Any] = [None] * group.size()
        dist.all_gather_object(found, own, group=group)
        said = {dist.get_global_rank(group, place): other for place, other in enumerate(found) if other is not None}
        return f"the ranks do not agree on their {what}: {said}" if len(set(said.values())) > 1 else None

    @staticmethod
    def _raise_everywhere(num_steps_done: int, faults: list[str]) -> None:
        """What some ranks found, said by all: else the others would go on and wait for them."""
        found: list[list[str]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(found, faults)
        by_fault: dict[str, list[int]] = {}
        for rank, said in enumerate(found):
            for fault in said:
                by_fault.setdefault(fault, []).append(rank)
        if by_fault:
            sentences = "; ".join(f"{fault} (found by ranks {ranks})" for fault, ranks in by_fault.items())
            raise InvariantError(f"step {num_steps_done + 1} was not taken: {sentences}")

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
