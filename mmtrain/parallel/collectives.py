"""Collectives over a named group, with the gradients they need."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel import reduce_from_tensor_model_parallel_region, vocab_parallel_cross_entropy


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


def told_by_last(value: Any, group: dist.ProcessGroup) -> Any:
    """What the last rank of the group brings, on every rank of it; for plain values, now and then."""
    if group.size() == 1:
        return value
    told = [value]
    dist.broadcast_object_list(told, src=dist.get_global_rank(group, group.size() - 1), group=group)
    return told[0]


def gathered_lists(own: list[Any], group: dist.ProcessGroup) -> list[Any]:
    """The lists of all ranks in one, in the order of ranks; for plain values, now and then."""
    found: list[list[Any]] = [[] for _ in range(group.size())]
    dist.all_gather_object(found, own, group=group)
    return [each for part in found for each in part]


def token_losses(logits_NV: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """Cross-entropy [N] of each token from this rank's part of the vocabulary; 0 where the label is negative.

    The softmax runs in float32 over the tensor-parallel group (Shoeybi et al. 2019, section 3).
    """
    read_N = labels_N >= 0
    # megatron subtracts and exponentiates in place, which the caller's logits must not see.
    losses_N = vocab_parallel_cross_entropy(logits_NV.to(torch.float32, copy=True), labels_N.clamp_min(0))
    return losses_N * read_N


def smoothed_token_losses(logits_NV: torch.Tensor, labels_N: torch.Tensor, smoothing: float) -> torch.Tensor:
    """As `token_losses`, against a target of which `smoothing` is spread evenly over the vocabulary, padding too.

    megatron's own smoothing takes the mean over this rank's part of the vocabulary, another one in every layout.
    """
    losses_N = token_losses(logits_NV, labels_N)
    if not smoothing:
        return losses_N
    num_own, rank = logits_NV.shape[-1], parallel_state.get_tensor_model_parallel_rank()
    num_all = num_own * parallel_state.get_tensor_model_parallel_world_size()
    # Cross-entropy against every token is log Z less its logit: beside the true token's only mean and own logit differ.
    place_N = labels_N - rank * num_own
    is_here_N = (place_N >= 0) & (place_N < num_own)
    own_N = logits_NV.gather(1, place_N.clamp(0, num_own - 1)[:, None])[:, 0].float() * is_here_N
    apart_N = reduce_from_tensor_model_parallel_region(own_N - logits_NV.float().sum(dim=-1) / num_all)
    return losses_N + smoothing * apart_N * (labels_N >= 0)


def whole_logits(part_NV: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """[N, V / ranks] on each rank of the tensor-parallel `group` -> [N, V] on all, in float32, without a gradient."""
    parts_PNV = gather_rows(part_NV.float()[None], group)
    return parts_PNV.transpose(0, 1).flatten(1)


def top_tokens(logits_NV: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The likeliest token [N] of the whole vocabulary, from logits cut along it over the tensor-parallel `group`."""
    best_N, index_N = logits_NV.float().max(dim=-1)
    index_N = index_N + dist.get_rank(group) * logits_NV.shape[-1]
    best_PN = gather_rows(best_N[None], group)
    return gather_rows(index_N[None], group).gather(0, best_PN.argmax(dim=0, keepdim=True))[0]
