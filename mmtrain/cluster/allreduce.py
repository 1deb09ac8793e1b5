"""An all-reduce that must be right: over the ranks of a node, then over all of them, each telling who was wrong."""

from datetime import timedelta

import torch
import torch.distributed as dist

from mmtrain.cluster.verdict import RankResult

ELEMENTS = 2**20  # of the sum, over all ranks
# In what torch says where another rank did not come or went away.
ALONE_WORDS = ("by peer", "gloo/transport", "caused pair closure", "Timed out", "timed out", "timeout", "Broken pipe")
PERIOD = 251  # a prime, so that neither a shifted nor a doubled part passes for the right one


def part_of(rank: int, length: int) -> torch.Tensor:
    """What a rank adds: whole numbers that float32 adds up exactly, other ones for every rank, and never 0."""
    return ((torch.arange(length) * 31 + rank * 17) % PERIOD + 1).float()


def wrong_parts(total_RN: torch.Tensor, ranks: range) -> tuple[int, ...]:
    """The ranks whose row of the sum is not what they added."""
    rows = enumerate(ranks)
    return tuple(rank for row, rank in rows if not torch.equal(total_RN[row], part_of(rank, total_RN.shape[1])))


def sum_parts(rank: int, ranks: range, group: dist.ProcessGroup | None, device: torch.device) -> torch.Tensor:
    """The all-reduced [len(ranks), N], on the CPU: row r is what the r-th rank added, if all went well."""
    total_RN = torch.zeros(len(ranks), max(ELEMENTS // len(ranks), 1))
    total_RN[ranks.index(rank)] = part_of(rank, total_RN.shape[1])
    total_RN = total_RN.to(device)
    dist.all_reduce(total_RN, group=group)
    return total_RN.cpu()


def try_rank(place: str, *, rank: int, world_size: int, local_world_size: int, seconds: float) -> RankResult:
    """Join the other ranks at `place` and add up; whatever goes wrong is in the result."""
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", rank % local_world_size) if on_gpu else torch.device("cpu")
    try:
        torch.ones(1, device=device).add_(1).item()  # a broken GPU says so here, alone
    except RuntimeError as error:
        return RankResult(rank, f"its device does not compute: {_first_line(error)}", (), False)
    backend, limit = "cpu:gloo,cuda:nccl" if on_gpu else "gloo", timedelta(seconds=seconds)
    try:
        # The device is not bound to the group, which would connect all GPUs at once: those of a node come first.
        dist.init_process_group(backend, init_method=f"tcp://{place}", rank=rank, world_size=world_size, timeout=limit)
        result = _add_up(rank, world_size, local_world_size, device)
        dist.barrier(group=dist.new_group(backend="gloo"))  # the first rank keeps the store until all have done
        dist.destroy_process_group()
    except RuntimeError as error:  # DistError and its kinds are RuntimeErrors
        is_alone = any(word in str(error) for word in ALONE_WORDS)
        return RankResult(rank, None if is_alone else _first_line(error), (), is_alone)
    return result


def _add_up(rank: int, world_size: int, local_world_size: int, device: torch.device) -> RankResult:
    first = rank - rank % local_world_size
    here, everyone = range(first, first + local_world_size), range(world_size)
    groups = [dist.new_group(list(here_or_there)) for here_or_there in _nodes(world_size, local_world_size)]
    wrong = wrong_parts(sum_parts(rank, here, groups[first // local_world_size], device), here)
    fault = f"an all-reduce within its node is wrong in the parts of ranks {wrong}" if wrong else None
    return RankResult(rank, fault, wrong_parts(sum_parts(rank, everyone, None, device), everyone), False)


def _nodes(world_size: int, local_world_size: int) -> list[range]:
    return [range(first, first + local_world_size) for first in range(0, world_size, local_world_size)]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
