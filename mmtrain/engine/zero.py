"""The engine: DeepSpeed ZeRO over the data-parallel ranks, tensor parallelism inside. DeepSpeed's only door-keeper."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from mmtrain.config.schema import RunConfig
from mmtrain.engine.evaluation import Evaluation
from mmtrain.engine.optim import build_optimizer, learning_rate_at
from mmtrain.model.rows import Layout, count_read, plan_rows
from mmtrain.model.vlm import VisionLanguageModel
from mmtrain.objectives.contract import Totals
from mmtrain.objectives.mixture import Mixture
from mmtrain.parallel.collectives import sum_floats
from mmtrain.parallel.groups import Groups
from mmtrain.parallel.slices import Slice
from mmtrain.planner.flops import step_flops
from mmtrain.records import Batch, EvalReport, Features, StepReport


def _import_deepspeed() -> Any:
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    return deepspeed


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


class ZeroEngine:
    """A model whose states are cut over the data-parallel ranks, as far as `zero.stage` says (Rajbhandari 2020)."""

    def __init__(
        self,
        plan: RunConfig,
        model: VisionLanguageModel,
        mixture: Mixture,
        groups: Groups,
        slices: dict[str, Slice],
        *,
        device: torch.device,
        dtype: torch.dtype,
        vocab_size: int,
        evaluation: Evaluation | None,
    ) -> None:
        deepspeed = _import_deepspeed()
        self.plan, self.mixture, self.groups, self.device = plan, mixture, groups, device
        self.layout = Layout.of(mixture.rows)
        self.slices, self.vocab_size, self.evaluation = slices, vocab_size, evaluation
        self.num_steps_done = 0
        if not deepspeed.comm.is_initialized():
            deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
        self.engine, *_ = deepspeed.initialize(
            model=model.to(device),
            optimizer=build_optimizer(model.named_parameters(), plan.train),
            model_parameters=list(model.parameters()),
            mpu=GroupsForDeepSpeed(groups),
            config=deepspeed_config(plan, groups.grid.dp, dtype),
        )

    def step(self, micro_batches: Sequence[Batch]) -> StepReport:
        totals = self._agree_on_totals(micro_batches)
        learning_rate = learning_rate_at(self.num_steps_done, self.plan.train)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self.engine.train()
        summed: dict[str, torch.Tensor] = {}
        for number, batch in enumerate(micro_batches, 1):
            features = self._forward(batch, self.layout)
            losses = self.mixture.losses(features, batch.to(self.device), totals)
            self.engine.set_gradient_accumulation_boundary(number == len(micro_batches))
            # DeepSpeed averages gradients over the data-parallel ranks; the losses here are shares that add up.
            self.engine.backward(losses["loss"] * self.groups.grid.dp, scale_wrt_gas=False)
            for name, loss in losses.items():
                summed[name] = summed.get(name, 0.0) + loss.detach()
        self.engine.step()
        self.num_steps_done += 1
        return self._report(micro_batches, summed, features, learning_rate)

    def evaluate(self) -> EvalReport:
        assert self.evaluation is not None, "this engine was built without a held-out split"
        self.engine.eval()
        with torch.no_grad():
            return self.evaluation.run(self._forward)

    def weights(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        from deepspeed.utils import safe_get_full_fp32_param

        coord, dp = self.groups.coord, self.groups.grid.dp
        for number, (name, param) in enumerate(self.engine.module.named_parameters()):
            weight, place = safe_get_full_fp32_param(param), self.slices[name]
            is_replica = place.shape == place.global_shape and coord.tp > 0
            if number % dp == coord.dp and not is_replica:
                yield place, weight.cpu()

    def _forward(self, batch: Batch, layout: Layout) -> Features:
        return self.engine(plan_rows(batch, layout).to(self.device))

    def _agree_on_totals(self, micro_batches: Sequence[Batch]) -> Totals:
        counts = [count_read(batch, self.plan.itm.pool_size) for batch in micro_batches]
        names = list(counts[0])
        own = [float(sum(count[name] for count in counts)) for name in names]
        return Totals(**dict(zip(names, sum_floats(own, self.groups.data, self.device), strict=True)))

    def _report(
        self, micro_batches: Sequence[Batch], summed: dict[str, torch.Tensor], features: Features, learning_rate: float
    ) -> StepReport:
        names = list(summed)
        flops, num_tokens = self._work(micro_batches)
        own = [float(summed[name]) for name in names] + [flops, float(num_tokens)]
        *losses, flops, num_tokens = sum_floats(own, self.groups.data, self.device)
        temperature = features.get("temperature")
        return StepReport(
            losses=dict(zip(names, losses, strict=True)),
            grad_norm=float(self.engine.get_global_grad_norm()),
            learning_rate=learning_rate,
            temperature=float("nan") if temperature is None else float(temperature.detach()),
            num_samples=self.plan.train.global_batch_size,
            num_tokens=int(num_tokens),
            flops=flops,
        )

    def _work(self, micro_batches: Sequence[Batch]) -> tuple[float, int]:
        """Floating-point operations and tokens of this data-parallel rank's samples in one step."""
        model = self.plan.model
        flops, num_tokens = 0.0, 0
        for batch in micro_batches:
            num_samples, text_length = batch.text_ids_BT.shape
            counts = count_read(batch, self.plan.itm.pool_size)
            picked = {"masked": counts["masked_tokens"], "causal": counts["next_tokens"]}
            flops += sum(
                step_flops(
                    model,
                    self.plan.loss,
                    self.vocab_size,
                    num_samples=num_samples,
                    text_length=text_length,
                    num_picked_tokens=sum(count for kind, count in picked.items() if kind in self.layout.fusion),
                ).values()
            )
            num_tokens += num_samples * (model.num_patches + 1) + int(batch.text_lengths_B.sum())
        return flops, num_tokens


def deepspeed_config(plan: RunConfig, dp: int, dtype: torch.dtype) -> dict[str, Any]:
    """The run in DeepSpeed's own words."""
    micro_batch_size = plan.train.micro_batch_size
    return {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": plan.train.global_batch_size // (micro_batch_size * dp),
        "gradient_clipping": plan.train.gradient_clipping,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {"stage": plan.zero.stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
