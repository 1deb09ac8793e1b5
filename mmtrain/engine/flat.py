"""Where DeepSpeed's ZeRO keeps this rank's float32 weights and their moments: flat tensors of many weights' parts.

Read from DeepSpeed's own bookkeeping; the optimizers that are handed in are its wrappers around AdamW.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from mmtrain.engine.optim import Part, parts_of

Named = Iterable[tuple[str, torch.nn.Parameter]]


def masters_of_stage_3(optimizer: Any) -> list[torch.Tensor]:
    """The flat float32 tensors of stage 3."""
    return list(optimizer.fp32_partitioned_groups_flat)


def parts_of_stage_3(optimizer: Any, named: Named) -> Iterator[Part]:
    """Stage 3 cuts every weight on its own into equal parts, the last ones padded."""
    masters = masters_of_stage_3(optimizer)
    for name, param in named:
        group, offset, size = optimizer.grad_position[optimizer.get_param_id(param)]
        start = size * optimizer._get_param_partition_rank(param)
        size = min(size, param.ds_numel - start)  # without the padding
        if size > 0:
            yield from parts_of(optimizer.optimizer, masters[group], name, start, slice(offset, offset + size))


def refresh_stage_3(optimizer: Any, put_back_frozen: Callable[[], None]) -> None:
    """The weights as the masters say, as after a step: gathered ones are let go, those that persist gathered anew.

    `put_back_frozen` does the same to the parts of those that have no masters, once all are in parts.
    """
    optimizer._partition_all_parameters()
    put_back_frozen()
    for number in range(len(optimizer.fp32_partitioned_groups_flat)):
        optimizer._reassign_or_swap_out_partitioned_parameters(number)
    if optimizer.persistent_parameters:
        optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)


def masters_of_stage_1_and_2(optimizer: Any) -> list[torch.Tensor]:
    """The flat float32 tensors of stages 1 and 2, one to each of AdamW's groups."""
    return [group["params"][0] for group in optimizer.optimizer.param_groups]


def parts_of_stage_1_and_2(optimizer: Any, named: Named) -> Iterator[Part]:
    """Stages 1 and 2 lay the weights of a group one after the other and cut that into equal parts."""
    masters = masters_of_stage_1_and_2(optimizer)
    for name, param in named:
        linked = param._hp_mapping
        if linked is None:  # it lies on other ranks
            continue
        here = linked.hp_fragment_address
        span = slice(here.start, here.start + here.numel)
        master = masters[linked.param_group_index]
        yield from parts_of(optimizer.optimizer, master, name, linked.lp_fragment_address.start, span)


def refresh_stage_1_and_2(optimizer: Any) -> None:
    """The weights as the masters say, gathered from all ranks of the stage."""
    with torch.no_grad():
        optimizer.update_lp_params()
