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
        parts = [part for part in (*gradients, *losses) if part.numel()]
        # A norm is finite where every element is, until its square overflows: no good gradient either.
        norms = torch._foreach_norm([part.detach() for part in parts]) if parts else ()
        is_bad = sum((~torch.isfinite(norm) for norm in norms), torch.zeros((), device=self.device)) > 0
        received = torch.tensor(self.received(), device=self.device)
        found = torch.stack([is_bad.long(), received])
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        bad, signal = found.tolist()
        return Verdict(is_finite=not bad, signal=signal)
