"""States of a stage that one data-parallel rank holds whole: there is nothing to cut, so ZeRO has nothing to do.

The same arithmetic as under ZeRO: gradients add up in float32, one norm over the whole model, AdamW on float32 masters.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from mmtrain.config.schema import RunConfig
from mmtrain.engine.frozen import ANCHOR, FrozenWeights, anchored, share_in
from mmtrain.engine.optim import Part, build_optimizer, count_updates, parts_of, set_learning_rate, set_updates
from mmtrain.model.chunks import StageModel
from mmtrain.parallel.collectives import sum_floats
from mmtrain.parallel.groups import Groups

CLIPPING_EPSILON = 1e-6  # DeepSpeed's and torch's own


class UncutStates:
    """Weights in `dtype`, masters and moments in float32, all on this rank."""

    def __init__(
        self, plan: RunConfig, model: StageModel, groups: Groups, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.groups, self.device, self.clipping = groups, device, plan.train.gradient_clipping
        self.model = model
        self.frozen = FrozenWeights(model, groups)
        self.stage, named = anchored(plan, model)
        self.stage.to(device)
        masters = [param.detach().float().clone() for _, param in named]
        self.stage.to(dtype)
        self.params = [param for _, param in named]
        keeps_masters = dtype != torch.float32
        self.masters = [torch.nn.Parameter(master) for master in masters] if keeps_masters else self.params
        named_masters = list(zip([name for name, _ in named], self.masters, strict=True))
        self.named_masters = [(name, master) for name, master in named_masters if not name.startswith(ANCHOR)]
        self.optimizer = build_optimizer(named_masters, plan.train, share_in(plan))
        self._copies = list(zip(self.params, self.masters, strict=True)) if keeps_masters else []
        sums_in_float32 = plan.zero.grad_accumulation == "fp32"
        for param, master in self._copies if sums_in_float32 else ():
            param.register_post_accumulate_grad_hook(lambda param, master=master: _add_to_master(param, master))

    def __call__(self, *inputs: Any) -> Any:
        return self.stage(*inputs)

    def during_passes(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        loss.backward()
        if is_last:
            for param, master in self._copies:
                if param.grad is not None:  # they added up in the weights' own type
                    _add_to_master(param, master)

    def gradients(self) -> Iterator[torch.Tensor]:
        return (master.grad for master in self.masters if master.grad is not None)

    def move(self, learning_rate: float) -> float:
        norm = self._norm()
        if 0 < self.clipping < norm + CLIPPING_EPSILON:
            torch._foreach_mul_(list(self.gradients()), self.clipping / (norm + CLIPPING_EPSILON))
        set_learning_rate(self.optimizer.param_groups, learning_rate)
        for master in self.masters:
            if master.grad is None:
                # AdamW would pass it over; under ZeRO, whose gradients are flat, it decays as if it had been 0.
                master.grad = torch.zeros_like(master)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._copy_masters()
        return norm

    def _copy_masters(self) -> None:
        if self._copies:
            with torch.no_grad():
                torch._foreach_copy_([param for param, _ in self._copies], [master for _, master in self._copies])

    def drop(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def _norm(self) -> float:
        """Of the whole model: a replicated weight counts once, on the first tensor-parallel rank."""
        counted = [
            master.grad
            for param, master in zip(self.params, self.masters, strict=True)
            if master.grad is not None and (self.groups.coord.tp == 0 or getattr(param, "tensor_model_parallel", False))
        ]
        own = torch.stack(torch._foreach_norm(counted)).double().square().sum() if counted else torch.zeros(1)
        return sum_floats([float(own)], self.groups.model, self.device)[0] ** 0.5

    def whole_gradients(self) -> Iterator[tuple[str, torch.Tensor]]:
        return ((name, master.grad) for name, master in self.named_masters if master.grad is not None)

    def parts(self) -> Iterator[Part]:
        yield from self.frozen.parts()
        for name, master in self.named_masters:
            yield from parts_of(self.optimizer, master, name, start=0)

    def count_updates(self) -> int:
        return count_updates(self.optimizer, self.masters)

    def take_up(self, num_updates: int) -> None:
        set_updates(self.optimizer, self.masters, num_updates)
        self.frozen.put_back()
        self._copy_masters()


def _add_to_master(param: torch.nn.Parameter, master: torch.nn.Parameter) -> None:
    if master.grad is None:
        master.grad = param.grad.float()
    else:
        master.grad += param.grad
    param.grad = None
