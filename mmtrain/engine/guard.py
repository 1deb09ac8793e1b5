"""What all ranks must know before an optimizer moves, in one all-reduce over the world."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Verdict:
    """The same on every rank."""

    is_finite: bool  # every gradient and every loss of the global batch
    signal: int  # number of a signal that some rank received; 0: none


class Guard:
    """Agrees over the world; `received` says which signal this rank got, 0 for none."""

    def __init__(self, device: torch.device, received: Callable[[], int]) -> None:
        self.device, self.received = device, received

    def agree(self, gradients: Iterable[torch.Tensor], losses: Iterable[torch.Tensor]) -> Verdict:
        """One fused look at this rank's part of the reduced gradients, then one all-reduce of two numbers."""
        is_finite = self._are_finite(gradients) & self._are_finite(losses)
        found = torch.stack([(~is_finite).long(), torch.tensor(self.received(), device=self.device)])
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        is_bad, signal = found.tolist()
        return Verdict(is_finite=not is_bad, signal=signal)

    def _are_finite(self, tensors: Iterable[torch.Tensor]) -> torch.Tensor:
        """One truth value on the device. A norm is finite where every element is, until its square overflows: such a
        gradient is no good either."""
        parts = [tensor.detach() for tensor in tensors if tensor.numel()]
        if not parts:
            return torch.ones((), dtype=torch.bool, device=self.device)
        return torch.isfinite(torch.stack(torch._foreach_norm(parts))).all()
