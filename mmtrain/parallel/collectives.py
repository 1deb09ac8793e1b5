"""Collectives over a named group, with the gradients they need."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import vocab_parallel_cross_entropy


class _GatherRows(torch.autograd.Function):
    """Concatenate equal-shaped parts along dim 0; the gradient of a part is the sum of what every rank asks of it."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.group, ctx.num_rows = group, part.shape[0]
        return gather_rows(part, group)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        whole = grad.contiguous().clone()
        dist.all_reduce(whole, group=ctx.group)
        first = dist.get_rank(ctx.group) * ctx.num_rows
        return whole[first : first + ctx.num_rows], None


def gather_rows_with_grad(part: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """[N, ...] on each rank of `group` -> [ranks x N, ...] on all, in rank order; every rank brings the same N.

    Gradients flow back to the rank that brought the row, summed over all ranks (Radford et al. 2021, section 2.3,
    leave this to the reader; without it a rank would train only on its own rows).
    """
    return part if group.size() == 1 else _GatherRows.apply(part, group)


def gather_rows(part: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The same concatenation without a gradient."""
    part = part.contiguous()
    whole = part.new_empty(group.size() * part.shape[0], *part.shape[1:])
    dist.all_gather_into_tensor(whole, part, group=group)
    return whole


def sum_over(tensor: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """A new tensor: the sum of every rank's, without a gradient."""
    total = tensor.detach().clone()
    if group.size() > 1:
        dist.all_reduce(total, group=group)
    return total


def sum_floats(values: Sequence[float], group: dist.ProcessGroup, device: torch.device) -> list[float]:
    """Each of `values` summed over the group, in double precision; every rank brings as many."""
    return sum_over(torch.tensor(values, dtype=torch.float64, device=device), group).tolist()


def least_of(value: int, group: dist.ProcessGroup, device: torch.device) -> int:
    """The smallest `value` that any rank of the group brings."""
    least = torch.tensor([value], dtype=torch.int64, device=device)
    dist.all_reduce(least, op=dist.ReduceOp.MIN, group=group)
    return int(least)


def token_losses(logits_NV: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """Cross-entropy [N] of each token from this rank's part of the vocabulary; 0 where the label is negative.

    The softmax runs in float32 over the tensor-parallel group (Shoeybi et al. 2019, section 3).
    """
    read_N = labels_N >= 0
    # megatron subtracts and exponentiates in place, which the caller's logits must not see.
    losses_N = vocab_parallel_cross_entropy(logits_NV.to(torch.float32, copy=True), labels_N.clamp_min(0))
    return losses_N * read_N


def top_tokens(logits_NV: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The likeliest token [N] of the whole vocabulary, from logits cut along it over the tensor-parallel `group`."""
    best_N, index_N = logits_NV.float().max(dim=-1)
    index_N = index_N + dist.get_rank(group) * logits_NV.shape[-1]
    best_PN = gather_rows(best_N[None], group)
    return gather_rows(index_N[None], group).gather(0, best_PN.argmax(dim=0, keepdim=True))[0]
