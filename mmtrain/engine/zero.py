"""The engine: DeepSpeed ZeRO over the data-parallel ranks of each pipeline stage, tensor parallelism inside.

DeepSpeed's door-keeper, with `partition`.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from mmtrain.config.schema import RunConfig
from mmtrain.engine.evaluation import Evaluation
from mmtrain.engine.invariants import Invariants
from mmtrain.engine.optim import build_optimizer, learning_rate_at
from mmtrain.engine.partition import add_up_in, confine_checks_to, gather_and_hold, reduced_once
from mmtrain.engine.passes import Losses, Passes
from mmtrain.engine.work import tokens_and_flops
from mmtrain.model.rows import Layout, count_read
from mmtrain.model.vlm import VisionLanguageModel
from mmtrain.objectives.contract import Totals
from mmtrain.objectives.mixture import Mixture
from mmtrain.parallel.collectives import sum_floats
from mmtrain.parallel.groups import Groups
from mmtrain.parallel.slices import Slice
from mmtrain.records import Batch, EvalReport, Features, StepReport

LOG = logging.getLogger("mmtrain.engine")
ALL_PERSISTENT = 10**9  # elements; DeepSpeed keeps smaller weights gathered between steps


def open_deepspeed(
    plan: RunConfig, model: VisionLanguageModel, groups: Groups, device: torch.device, dtype: torch.dtype
) -> Any:
    """DeepSpeed's engine around this stage of the model, its weights cut as `zero.stage` says."""
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    confine_checks_to(groups.data)
    if not deepspeed.comm.is_initialized():
        deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
    engine, *_ = deepspeed.initialize(
        model=model.to(device),
        optimizer=build_optimizer(model.named_parameters(), plan.train),
        model_parameters=list(model.parameters()),
        mpu=GroupsForDeepSpeed(groups),
        config=deepspeed_config(plan, groups.grid.dp, dtype),
    )
    if reduces_once(plan, groups.grid.dp) and plan.zero.grad_accumulation == "fp32":
        # DeepSpeed's own `grad_accum_dtype` is that of what was reduced; here all adds up before it is.
        add_up_in(model.parameters(), torch.float32)
    return engine


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


class ZeroEngine:
    """A stage whose states are cut over the data-parallel ranks, as far as `zero.stage` says (Rajbhandari et al. 2020)."""

    def __init__(
        self,
        plan: RunConfig,
        engine: Any,
        passes: Passes,
        mixture: Mixture,
        groups: Groups,
        slices: dict[str, Slice],
        *,
        device: torch.device,
        vocab_size: int,
        evaluation: Evaluation | None,
    ) -> None:
        self.plan, self.engine, self.passes, self.mixture = plan, engine, passes, mixture
        self.groups, self.slices, self.device = groups, slices, device
        self.layout = Layout.of(mixture.rows)
        self.vocab_size, self.evaluation = vocab_size, evaluation
        self.gathers_per_step = reduces_once(plan, groups.grid.dp)
        self.invariants = Invariants(plan, groups, device)
        self.num_steps_done = 0

    def step(self, micro_batches: Sequence[Batch]) -> StepReport:
        batches = list(micro_batches)
        return self.update(batches, self.accumulate(batches))

    def accumulate(self, batches: list[Batch]) -> list[Losses]:
        """The first half of a step: the losses of each micro-batch, and their gradients summed and reduced."""
        totals = self._agree_on_totals(batches)
        self.engine.train()
        with self._weights_held():
            if self.mixture.needs_first_pass:
                self._contrast_whole_batch(batches, totals)
            found = self._train(batches, totals)
        self.engine.set_gradient_accumulation_boundary(True)
        return found

    def update(self, batches: list[Batch], found: list[Losses]) -> StepReport:
        """The second half: look at what must agree, clip, and move the weights."""
        learning_rate = learning_rate_at(self.num_steps_done, self.plan.train)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        if self.invariants.are_due(self.num_steps_done):
            self.invariants.check(self.num_steps_done, self.engine.module, self._reduced_gradients())
        self.engine.step()
        self.num_steps_done += 1
        return self._report(batches, found, learning_rate)

    def evaluate(self) -> EvalReport:
        assert self.evaluation is not None, "this engine was built without a held-out split"
        self.engine.eval()
        return self.evaluation.run(self.passes)

    def weights(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        from deepspeed.utils import safe_get_full_fp32_param

        return self._shared_out(safe_get_full_fp32_param)

    def gradients(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        """As `weights`, of the global batch's gradient before it is clipped; to be asked between the halves of a step."""
        from deepspeed.utils import safe_get_full_grad

        return self._shared_out(safe_get_full_grad)

    def _shared_out(self, whole: Callable[[torch.nn.Parameter], torch.Tensor]) -> Iterator[tuple[Slice, torch.Tensor]]:
        """What `whole` puts together of every parameter, each kept by one rank; every rank asks for every one."""
        coord, dp = self.groups.coord, self.groups.grid.dp
        for number, (name, param) in enumerate(self.engine.module.named_parameters()):
            tensor, place = whole(param), self.slices[name]
            is_replica = place.shape == place.global_shape and coord.tp > 0
            if number % dp == coord.dp and not is_replica:
                yield place, tensor.float().cpu()

    @contextlib.contextmanager
    def _weights_held(self) -> Iterator[None]:
        """Around all passes of a step: with `per_step`, weights are gathered before it and gradients reduced after it."""
        if not self.gathers_per_step:
            yield
            return
        gather_and_hold(self.engine.module.parameters())
        with reduced_once(self.engine):
            yield

    def _reduced_gradients(self) -> Iterator[torch.Tensor]:
        """This rank's parts of the gradients, as the optimizer will read them."""
        for group in self.engine.optimizer.averaged_gradients.values():
            yield from (gradient for gradient in group or () if gradient is not None)

    def _train(self, batches: list[Batch], totals: Totals) -> list[Losses]:
        def loss_of(features: Features, batch: Batch) -> Losses:
            losses = self.mixture.losses(features, batch, totals)
            # DeepSpeed averages gradients over the data-parallel ranks; the losses here are shares that add up.
            return losses | {
                "shares": losses["loss"].detach(),
                "loss": losses["loss"] * self.groups.grid.dp,
                "temperature": features.get("temperature", torch.full((1,), torch.nan)).detach(),
            }

        return self.passes.train(batches, self.layout, loss_of)

    def _contrast_whole_batch(self, batches: list[Batch], totals: Totals) -> None:
        """The first of two passes: features of all micro-batches, no gradients, no fusion."""
        found = list(self.passes.infer(batches, Layout.of({"clean"})))
        if self.passes.sees_features:
            self.mixture.take_first_pass(found, totals)

    def _agree_on_totals(self, batches: list[Batch]) -> Totals:
        counts = [count_read(batch, self.plan.itm.pool_size) for batch in batches]
        names = list(counts[0])
        own = [float(sum(count[name] for count in counts)) for name in names]
        return Totals(**dict(zip(names, sum_floats(own, self.groups.data, self.device), strict=True)))

    def _report(self, batches: list[Batch], found: list[Losses], learning_rate: float) -> StepReport:
        names = self.mixture.loss_names
        sums = [sum(float(losses["shares" if name == "loss" else name]) for losses in found) for name in names]
        temperature = float(found[-1]["temperature"]) / self.groups.grid.dp if found else 0.0
        num_tokens, flops = tokens_and_flops(self.plan, self.layout, self.vocab_size, batches)
        # Only the last stage saw losses; every stage counts the same work.
        everywhere = sum_floats([*sums, temperature], self.groups.data, self.device)
        *losses, temperature = sum_floats(everywhere, self.groups.pipe, self.device)
        num_tokens, flops = sum_floats([float(num_tokens), flops], self.groups.data, self.device)
        return StepReport(
            losses=dict(zip(names, losses, strict=True)),
            grad_norm=float(self.engine.get_global_grad_norm()),
            learning_rate=learning_rate,
            temperature=temperature,
            num_samples=self.plan.train.global_batch_size,
            num_tokens=int(num_tokens),
            flops=flops,
        )


def gather_mode(plan: RunConfig, dp: int) -> str:
    """`zero.gather`, `auto` decided: per use with one pipeline stage, where it costs no more; else once a step.

    One data-parallel rank holds whole weights in any case, and only loses time by letting them go.
    """
    if plan.zero.gather != "auto":
        return plan.zero.gather
    return "per_use" if plan.parallel.pp == 1 and dp > 1 else "per_step"


def reduces_once(plan: RunConfig, dp: int) -> bool:
    """Whether weights are gathered, and gradients reduced, once for all micro-batches of a step."""
    return plan.zero.stage == 3 and gather_mode(plan, dp) == "per_step"


def deepspeed_config(plan: RunConfig, dp: int, dtype: torch.dtype) -> dict[str, Any]:
    """The run in DeepSpeed's own words."""
    micro_batch_size = plan.train.micro_batch_size
    zero: dict[str, Any] = {"stage": plan.zero.stage}
    if plan.zero.stage == 3:
        zero["stage3_param_persistence_threshold"] = ALL_PERSISTENT if reduces_once(plan, dp) else 0
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
