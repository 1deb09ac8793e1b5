"""The process groups of this rank."""

import os
import socket
from dataclasses import dataclass
from datetime import timedelta

from mmtrain.parallel.grid import Coord, Grid
from mmtrain.parallel.launch import Launch, refuse_incomplete


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Groups:
    """The grid, this rank's place in it, and the named groups it talks to; never the unnamed world."""

    grid: Grid
    coord: Coord
    rank: int
    data: object  # the ranks that hold the same slice of the model and other samples
    tensor: object  # the ranks that share each matrix
    model: object  # tensor x pipeline: together one whole model
    pipe: object  # the stages that a sample passes through


def start(launch: Launch, *, tp: int, pp: int, on_gpu: bool, timeout_seconds: float = 1800.0) -> Groups:
    """Join the other ranks and cut the world into the grid's groups; every rank must call it.

    A collective that waits longer than `timeout_seconds` for another rank is an error.
    """
    import torch.distributed as dist
    from megatron.core import parallel_state

    if not on_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed asks when it is imported
    refuse_incomplete(launch.world_size)
    if launch.world_size == 1:
        stand_alone()
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    parallel_state.initialize_model_parallel(tp, pp)
    hold_to(timeout_seconds)
    grid = Grid.over(launch.world_size, tp, pp)
    return Groups(
        grid=grid,
        coord=grid.coord(launch.rank),
        rank=launch.rank,
        data=parallel_state.get_data_parallel_group(),
        tensor=parallel_state.get_tensor_model_parallel_group(),
        model=parallel_state.get_model_parallel_group(),
        pipe=parallel_state.get_pipeline_model_parallel_group(),
    )


def stand_alone() -> None:
    """Set the variables that torch reads, for a process that meets no other.

    One that no launcher started gets an address of its own: another that was left in the shell may lead nowhere.
    """
    if "WORLD_SIZE" not in os.environ:
        os.environ.pop("MASTER_ADDR", None)
        os.environ.pop("MASTER_PORT", None)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    if "MASTER_PORT" not in os.environ:
        os.environ["MASTER_PORT"] = str(_free_port())


def hold_to(timeout_seconds: float) -> None:
    """Let every group that exists wait so long and no longer: groups of dependencies come with half an hour."""
    from torch.distributed import distributed_c10d

    for group in list(distributed_c10d._world.pg_map):
        distributed_c10d._set_pg_timeout(timedelta(seconds=timeout_seconds), group)


def stop() -> None:
    """Leave every group; further collectives are errors."""
    import torch.distributed as dist
    from megatron.core import parallel_state

    parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()
