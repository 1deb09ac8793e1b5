"""What is changed in DeepSpeed's ZeRO-3, and how its weights are held: per use, or once per optimizer step.

DeepSpeed checks that every rank of the world ran the same modules; pipeline stages do not, so the check is confined to
the ranks of one stage. Known to the versions named here; any other is refused.
"""

import contextlib
import importlib
import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

TESTED_DEEPSPEED = ("0.19.",)
INITIAL_MICRO_STEP = -1  # of ZeRO-1 and 2: before the first backward of a step
GATHERED_TOGETHER = 2**24  # elements of weights that are brought in one collective
HOLDER = -1  # a user of a weight that never leaves; DeepSpeed's own are numbered from 0


def refuse_untested_deepspeed() -> None:
    """RuntimeError unless the installed DeepSpeed is one whose source these changes know."""
    version = importlib.metadata.version("deepspeed")
    if not version.startswith(TESTED_DEEPSPEED):
        raise RuntimeError(
            f"deepspeed {version} was never run with mmtrain; install one of the versions "
            f"{' or '.join(tested + 'x' for tested in TESTED_DEEPSPEED)}"
        )


def confine_checks_to(data_group: dist.ProcessGroup) -> None:
    """Compare the traced modules among the ranks that hold the same stage."""
    refuse_untested_deepspeed()
    from deepspeed.runtime.zero import partitioned_param_coordinator

    def assert_same_in_stage(numbers: Sequence[int]) -> None:
        if data_group.size() == 1:
            return
        digest = hash(tuple(numbers))
        found: list[Any] = [None] * data_group.size()
        dist.all_gather_object(found, digest, group=data_group)
        if len(set(found)) > 1:
            raise RuntimeError("the ranks of one pipeline stage ran different modules; please report this layout")

    partitioned_param_coordinator.assert_ints_same_as_other_ranks = assert_same_in_stage


def build_nothing() -> None:
    """Keep DeepSpeed from compiling its CPU helper of shared memory when it starts on CPUs.

    Only its inference uses it. A compilation that is killed leaves a lock file behind, for which every later run would
    wait without an end or a word.
    """
    refuse_untested_deepspeed()
    backend = importlib.import_module("deepspeed.comm.torch")  # the package's own name `torch` is PyTorch
    if not hasattr(backend, "build_shm_op"):
        raise RuntimeError("this DeepSpeed builds its helper elsewhere")
    backend.build_shm_op = lambda: None


def gather(params: Iterable[torch.nn.Parameter]) -> None:
    """Gather every weight that is not here, many in one collective."""
    for bucket in _buckets(param for param in params if param.ds_status.name == "NOT_AVAILABLE"):
        bucket[0].all_gather_coalesced(bucket).wait()


def _buckets(params: Iterable[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    bucket: list[torch.nn.Parameter] = []
    room = GATHERED_TOGETHER
    for param in params:
        if bucket and param.ds_numel > room:
            yield bucket
            bucket, room = [], GATHERED_TOGETHER
        bucket.append(param)
        room -= param.ds_numel
    if bucket:
        yield bucket


def gather_together_after_steps(engine: Any) -> None:
    """Let the weights that persist come back after a step as `gather` gathers; DeepSpeed gathers them one by one."""
    for param in engine.optimizer.persistent_parameters:
        param.all_gather = partial(_gather_in_place_of_deepspeed, param)


def _gather_in_place_of_deepspeed(param: torch.nn.Parameter, params: list[torch.nn.Parameter] | None = None) -> None:
    gather([param] if params is None else params)


def gather_and_hold(params: Iterable[torch.nn.Parameter]) -> None:
    """Gather every weight that is not here and keep all from being let go after a use."""
    params = list(params)
    gather(params)
    for param in params:
        # A weight that somebody uses is never let go: without it even persistent ones are, until a trace is complete.
        param.ds_active_sub_modules.add(HOLDER)


def forget_gradients(engine: Any) -> None:
    """Empty ZeRO-3's sums of gradients before a step.

    DeepSpeed overwrites them at the first backward of a step and adds from the second on. A weight that the first
    backward does not meet, as with several parts of the depth on one rank, would be added to what the last step left.
    """
    sums = engine.optimizer._DeepSpeedZeroOptimizer_Stage3__param_id_to_grad_partition
    torch._foreach_zero_(list(sums.values()))


def drop_gradients(engine: Any, stage: int) -> None:
    """Leave a step out as DeepSpeed does itself when half-precision sums overflow, which it finds in its own step only.

    What it calls in turn is private; a step that was left out is tested against one that never was.
    """
    optimizer = engine.optimizer
    if stage == 3:
        optimizer._pre_step()
        optimizer._partition_all_parameters()
        optimizer._overflow_clean_up(optimizer.loss_scale)
        return
    optimizer.micro_step_id = INITIAL_MICRO_STEP
    optimizer.zero_grad(set_to_none=True)
    optimizer._release_preflattened_grad_buffers()
    for sums in (optimizer.averaged_gradients, optimizer.all_grad_tensors):
        sums.update(dict.fromkeys(sums))


def add_up_in(params: Iterable[torch.nn.Parameter], dtype: torch.dtype) -> None:
    """Let the gradients of several backward passes add up on this rank in `dtype`, whatever the weights' own.

    Only for weights that stay whole: a gradient is then as large as its weight, in `dtype`, until it is reduced.
    """
    for param in params:
        param.grad_dtype = dtype


@contextlib.contextmanager
def reduced_once(engine: Any) -> Iterator[None]:
    """Gradients add up on each rank while it lasts and are reduced at its end."""
    with engine.coalesce_grad_reduction():
        yield
