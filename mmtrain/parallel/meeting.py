"""What all ranks tell each other on the host, as plain values; one process alone needs nobody."""

from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def rank_and_size() -> tuple[int, int]:
    """This rank and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def told_by_all(value: T) -> list[T]:
    """What every rank said, in rank order, on all of them."""
    if rank_and_size()[1] == 1:
        return [value]
    said: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(said, value)
    return said


def told_to_first(value: T) -> list[T] | None:
    """What every rank said, in rank order, on the first rank; None on the others."""
    rank, size = rank_and_size()
    if size == 1:
        return [value]
    said = [value] * size if rank == 0 else None
    dist.gather_object(value, said)
    return said


def told_by_first(value: T) -> T:
    """What the first rank said; what the others bring is not looked at."""
    if rank_and_size()[1] == 1:
        return value
    said = [value]
    dist.broadcast_object_list(said)
    return said[0]


def count_of_all(count: int) -> int:
    """A count summed over all ranks: the cheapest of these."""
    total = torch.tensor(count, dtype=torch.int64)
    if rank_and_size()[1] > 1:
        dist.all_reduce(total)
    return int(total)
