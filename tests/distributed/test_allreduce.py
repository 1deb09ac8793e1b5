"""The all-reduce of the pre-flight: right over gloo, and a part that is wrong is seen by the other rank."""

import os

from mmtrain.cluster.verdict import RankResult
from tests.helpers import free_port, run_ranks


def _try(port: int, local_world_size: int) -> RankResult:
    from mmtrain.cluster.allreduce import try_rank

    rank = int(os.environ["RANK"])
    return try_rank(f"127.0.0.1:{port}", rank=rank, world_size=2, local_world_size=local_world_size, seconds=60)


def test_two_ranks_of_one_node_or_of_two_find_the_sum_right() -> None:
    for local_world_size in (1, 2):
        results = run_ranks(2, _try, free_port(), local_world_size)
        assert results == [RankResult(rank, None, (), False) for rank in range(2)]


def _spoil(port: int) -> tuple[int, ...]:
    """What rank 0 finds wrong of a sum to which rank 1 adds its part twice."""
    import torch
    import torch.distributed as dist

    from mmtrain.cluster.allreduce import ELEMENTS, part_of, sum_parts, wrong_parts

    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    if rank == 0:
        return wrong_parts(sum_parts(0, range(2), None, torch.device("cpu")), range(2))
    total_RN = torch.zeros(2, ELEMENTS // 2)
    total_RN[1] = 2 * part_of(1, ELEMENTS // 2)
    dist.all_reduce(total_RN)
    return ()


def test_a_part_that_is_wrong_is_told_by_its_rank() -> None:
    assert run_ranks(2, _spoil, free_port())[0] == (1,)
