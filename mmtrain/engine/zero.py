"""States cut over the data-parallel ranks of a stage, by DeepSpeed ZeRO (Rajbhandari et al. 2020).

DeepSpeed's door-keeper, with `partition`.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch

from mmtrain.config.schema import RunConfig
from mmtrain.engine import flat
from mmtrain.engine.frozen import FrozenWeights, anchored, moving, share_in
from mmtrain.engine.optim import Part, build_optimizer, count_updates, set_learning_rate, set_updates
from mmtrain.engine.partition import (
    add_up_in,
    build_nothing,
    confine_checks_to,
    drop_gradients,
    forget_gradients,
    gather_and_hold,
    gather_together_after_steps,
    reduced_once,
)
from mmtrain.model.chunks import StageModel
from mmtrain.parallel.groups import Groups, hold_to
from mmtrain.planner.memory import PREFETCHED, REDUCED_TOGETHER

ALL_PERSISTENT = 10**9  # elements; DeepSpeed keeps smaller weights gathered between steps


class ZeroStates:
    """A stage under DeepSpeed's engine, its states cut as `zero.stage` says; `zero.gather` is decided by now."""

    def __init__(
        self, plan: RunConfig, model: StageModel, groups: Groups, device: torch.device, dtype: torch.dtype
    ) -> None:
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        confine_checks_to(groups.data)
        build_nothing()
        if not deepspeed.comm.is_initialized():
            deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
        self.model, self.named = model, moving(model)
        self.frozen = FrozenWeights(model, groups)
        self.stage_model, named = anchored(plan, model)
        self.engine, *_ = deepspeed.initialize(
            model=self.stage_model.to(device),
            optimizer=build_optimizer(named, plan.train, share_in(plan)),
            model_parameters=[param for _, param in named],
            mpu=GroupsForDeepSpeed(groups),
            config=deepspeed_config(plan, groups.grid.dp, dtype),
        )
        hold_to(plan.parallel.timeout_seconds)
        self.gathers_per_step = plan.zero.stage == 3 and plan.zero.gather == "per_step"
        self.stage = plan.zero.stage
        if self.gathers_per_step:
            gather_together_after_steps(self.engine)
            if plan.zero.grad_accumulation == "fp32":
                # DeepSpeed's own `grad_accum_dtype` is that of what was reduced; here everything adds up before it is.
                add_up_in([param for _, param in named], torch.float32)
        self._num_backwards = 0

    def __call__(self, *inputs: Any) -> Any:
        return self.engine(*inputs)

    @contextlib.contextmanager
    def during_passes(self) -> Iterator[None]:
        """With `per_step`, weights are gathered before and gradients reduced after."""
        self._num_backwards = 0
        if self.stage == 3:
            forget_gradients(self.engine)
        if not self.gathers_per_step:
            yield
            return
        gather_and_hold(self.stage_model.parameters())
        with reduced_once(self.engine):
            yield

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        if self._num_backwards:
            # The engine takes the next forward for the end of a micro-batch. Without one it would overwrite the last
            # backward's gradients, and in a pipeline two backwards may follow each other.
            self.engine.optimizer.clear_backward_seen_flag()
        self._num_backwards += 1
        self.engine.set_gradient_accumulation_boundary(is_last)
        self.engine.backward(loss, scale_wrt_gas=False)

    def gradients(self) -> Iterator[torch.Tensor]:
        optimizer = self.engine.optimizer
        if hasattr(optimizer, "averaged_gradients"):
            for group in optimizer.averaged_gradients.values():
                yield from (gradient for gradient in group or () if gradient is not None)
        else:  # stage 1 in bf16 is another class of DeepSpeed's, which sums into flat tensors
            yield from optimizer.fp32_groups_gradient_flat_partition

    def move(self, learning_rate: float) -> float:
        set_learning_rate(self.engine.optimizer.param_groups, learning_rate)
        self.engine.set_gradient_accumulation_boundary(True)
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def drop(self) -> None:
        drop_gradients(self.engine, self.stage)

    def whole_gradients(self) -> Iterator[tuple[str, torch.Tensor]]:
        from deepspeed.utils import safe_get_full_grad

        return ((name, safe_get_full_grad(param).float()) for name, param in self.named)

    def parts(self) -> Iterator[Part]:
        yield from self.frozen.parts()
        parts_of_stage = flat.parts_of_stage_3 if self.stage == 3 else flat.parts_of_stage_1_and_2
        yield from parts_of_stage(self.engine.optimizer, self.named)

    def count_updates(self) -> int:
        return count_updates(self.engine.optimizer.optimizer, self._masters)

    def take_up(self, num_updates: int) -> None:
        set_updates(self.engine.optimizer.optimizer, self._masters, num_updates)
        if self.stage == 3:
            flat.refresh_stage_3(self.engine.optimizer, self.frozen.put_back_parts)
        else:
            flat.refresh_stage_1_and_2(self.engine.optimizer)
            self.frozen.put_back()

    @property
    def _masters(self) -> list[torch.Tensor]:
        masters_of = flat.masters_of_stage_3 if self.stage == 3 else flat.masters_of_stage_1_and_2
        return masters_of(self.engine.optimizer)


class GroupsForDeepSpeed:
    """What DeepSpeed asks of an `mpu`: the data-parallel group, and the ranks that together hold one whole model.

    The model-parallel group is tensor x pipeline, so that norm, clipping and overflow are agreed on by the whole model;
    the model-parallel rank is the tensor-parallel one, so that replicated weights count once.
    """

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    def get_data_parallel_group(self) -> Any:
        return self._groups.data

    def get_data_parallel_rank(self) -> int:
        return self._groups.coord.dp

    def get_data_parallel_world_size(self) -> int:
        return self._groups.grid.dp

    def get_model_parallel_group(self) -> Any:
        return self._groups.model

    def get_model_parallel_rank(self) -> int:
        return self._groups.coord.tp

    def get_model_parallel_world_size(self) -> int:
        return self._groups.grid.tp * self._groups.grid.pp

    def get_tensor_model_parallel_group(self) -> Any:
        return self._groups.tensor

    def get_tensor_model_parallel_rank(self) -> int:
        return self._groups.coord.tp

    def get_tensor_model_parallel_world_size(self) -> int:
        return self._groups.grid.tp

    def get_pipeline_model_parallel_rank(self) -> int:
        return self._groups.coord.pp

    def get_pipeline_model_parallel_world_size(self) -> int:
        return self._groups.grid.pp


def deepspeed_config(plan: RunConfig, dp: int, dtype: torch.dtype) -> dict[str, Any]:
    """The run in DeepSpeed's own words."""
    micro_batch_size = plan.train.micro_batch_size
    zero: dict[str, Any] = {"stage": plan.zero.stage, "reduce_bucket_size": REDUCED_TOGETHER}
    if plan.zero.stage == 3 and plan.zero.gather == "per_step":
        zero["stage3_param_persistence_threshold"] = ALL_PERSISTENT
    elif plan.zero.stage == 3:
        # As it comes, DeepSpeed keeps what is used again within 1e9 elements: of smaller models everything.
        zero |= {
            "stage3_param_persistence_threshold": 0,
            "stage3_max_reuse_distance": 0,
            "stage3_prefetch_bucket_size": PREFETCHED,
            "stage3_max_live_parameters": 2 * PREFETCHED,
        }
    return {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": plan.train.global_batch_size // (micro_batch_size * dp),
        "gradient_clipping": plan.train.gradient_clipping,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "data_types": {"grad_accum_dtype": plan.zero.grad_accumulation if dtype == torch.bfloat16 else "fp32"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
