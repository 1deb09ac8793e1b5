"""What all ranks must know before an optimizer moves, in one all-reduce over the world."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from mmtrain.engine.passes import Losses
from mmtrain.records import Batch


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

    @staticmethod
    def bad_places(batches: Sequence[Batch], found: Sequence[Losses]) -> tuple[int, ...]:
        """The samples, on any rank, of micro-batches whose loss is no finite number; every rank calls it."""
        own = [
            place
            for batch, losses in zip(batches, found, strict=False)  # only the last stage found losses
            if not bool(torch.isfinite(losses["loss"]).all())
            for place in batch.places_B.tolist()
        ]
        said: list[list[int]] = [own] * dist.get_world_size()
        dist.all_gather_object(said, own)
        return tuple(sorted({place for places in said for place in places}))

    def _are_finite(self, tensors: Iterable[torch.Tensor]) -> torch.Tensor:
        """One truth value on the device. A norm is finite where every element is, until its square overflows: such a
        gradient is no good either."""
        parts = [tensor.detach() for tensor in tensors if tensor.numel()]
        if not parts:
            return torch.ones((), dtype=torch.bool, device=self.device)
        return torch.isfinite(torch.stack(torch._foreach_norm(parts))).all()
