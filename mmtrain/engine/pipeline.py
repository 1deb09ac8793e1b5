"""Micro-batches through pipeline stages, by megatron-core's 1F1B schedules (Narayanan et al. 2021, section 2.2).

Each stage is one module whose states do their own backward. The schedule's would go behind their back and leave
gradients unreduced; so on a stage that is not the last, the loss is the sum of output x its gradient.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.pipeline_parallel.schedules import get_forward_backward_func
from megatron.core.transformer.transformer_config import TransformerConfig

from mmtrain.config.schema import ParallelConfig
from mmtrain.engine.agreement import agree_on_samples
from mmtrain.engine.passes import Losses, LossOf, detached
from mmtrain.engine.states import States
from mmtrain.model.chunks import StageModel
from mmtrain.model.packet import PacketShape
from mmtrain.model.rows import Layout, Rows, plan_rows
from mmtrain.parallel.cpu import using_backward_step
from mmtrain.records import Batch, Features


class Adapter(torch.nn.Module):
    """What the schedule calls: it carries megatron's config and keeps the packet that came in until the stage runs."""

    model_type = None

    def __init__(self, stage: Any, config: TransformerConfig, *chunk: int) -> None:
        super().__init__()
        self.config = config
        self._run, self._packet, self._chunk = [stage], None, chunk  # a list, so that it does not become a submodule

    def set_input_tensor(self, tensor: torch.Tensor | list[torch.Tensor | None] | None) -> None:
        """Called by the schedule with what the stage before sent; None on the first stage."""
        self._packet = tensor[0] if isinstance(tensor, list) else tensor

    def forward(self, rows: Rows) -> Features | torch.Tensor:
        return self._run[0](rows, self._packet, *self._chunk)


class PipelinePasses:
    """One stage of several; `sees_features` on the last."""

    def __init__(
        self,
        stage: Any,
        model: StageModel,
        parallel: ParallelConfig,
        pipe: dist.ProcessGroup,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.stage, self.model, self.parallel, self.pipe = stage, model, parallel, pipe
        self.device, self.dtype = device, dtype
        self.sees_features = model.is_last

    def agreed(self, batches: Sequence[Batch]) -> list[Batch]:
        return agree_on_samples(batches, self.pipe, self.device)

    def train(self, batches: list[Batch], layout: Layout, loss_of: LossOf) -> list[Losses]:
        num_batches = len(batches)

        def read(batch: Batch, features: Features) -> tuple[torch.Tensor, Losses]:
            losses = loss_of(features, batch)
            return losses["loss"] * num_batches, detached(losses)  # the schedule divides by their number

        num_backwards = num_batches * self.parallel.chunks_per_stage
        with using_backward_step(_BackwardThroughStates(self.stage, num_backwards)):
            return self._schedule(batches, layout, read, forward_only=False)

    def infer(self, batches: Iterable[Batch], layout: Layout) -> Iterator[tuple[Batch, Features | None]]:
        def read(batch: Batch, features: Features, **_: bool) -> tuple[Batch, Features]:
            return batch, features

        remaining = iter(batches)
        # As many at a time as there are stages: more would keep more features than needed, fewer would idle stages.
        while some := list(islice(remaining, self.parallel.pp)):
            # The interleaved schedule wants whole rounds of micro-batches: the last one fills up, and is cut off again.
            asked = len(some)
            some = self.agreed([*some, *some[-1:] * (self.parallel.pp - asked)])
            with torch.no_grad():
                found = self._schedule(some, layout, read, forward_only=True)
            yield from found[:asked] or ((batch, None) for batch in some[:asked])

    def _schedule(self, batches: list[Batch], layout: Layout, read: Any, *, forward_only: bool) -> list[Any]:
        planned = [(batch, plan_rows(batch, layout)) for batch in batches]
        shape = self.model.packet_shape(planned[0][1])

        def forward_step(remaining: Iterator[tuple[Batch, Rows]], adapter: Adapter) -> tuple[Any, Any]:
            batch, rows = next(remaining)
            return adapter(rows.to(self.device)), partial(read, batch.to(self.device))

        config, chunks = self._config(shape), self.parallel.chunks_per_stage
        run = get_forward_backward_func(pp_size=self.parallel.pp, vp_size=None if chunks == 1 else chunks)
        numbers = [()] if chunks == 1 else [(chunk,) for chunk in range(chunks)]
        return run(
            forward_step_func=forward_step,
            data_iterator=[iter(planned) for _ in numbers],
            model=[Adapter(self.stage, config, *number) for number in numbers],
            num_microbatches=len(batches),
            seq_length=shape.length * shape.unit,
            micro_batch_size=len(batches[0].places_B),
            forward_only=forward_only,
            collect_non_loss_data=forward_only,
        )

    def _config(self, shape: PacketShape) -> TransformerConfig:
        """What the schedule must know: the packet's width and type, and how the ranks share the work."""
        chunks = self.parallel.chunks_per_stage
        return TransformerConfig(
            num_layers=self.parallel.pp * chunks,
            hidden_size=shape.width,
            num_attention_heads=self.parallel.tp,
            tensor_model_parallel_size=self.parallel.tp,
            pipeline_model_parallel_size=self.parallel.pp,
            virtual_pipeline_model_parallel_size=None if chunks == 1 else chunks,
            sequence_parallel=self.parallel.sequence_parallel,
            pipeline_dtype=self.dtype,
            batch_p2p_comm=False,
            gradient_accumulation_fusion=False,
            bias_dropout_fusion=False,
        )


class _BackwardThroughStates:
    """megatron's `backward_step` in the hands of the states; the last one closes the accumulation."""

    def __init__(self, states: States, num_backwards: int) -> None:
        self.states, self.num_backwards, self.num_done = states, num_backwards, 0

    def __call__(
        self, input_tensor: Any, output_tensor: Any, output_tensor_grad: Any, model_type: Any, config: Any
    ) -> Any:
        came_in = input_tensor if isinstance(input_tensor, list) else [input_tensor]
        output, grad = _only(output_tensor), _only(output_tensor_grad)
        for tensor in came_in:
            if tensor is not None:
                tensor.retain_grad()
        self.num_done += 1
        loss = output if grad is None else (output * grad).sum()
        self.states.backward(loss, is_last=self.num_done == self.num_backwards)
        grads = [None if tensor is None else tensor.grad for tensor in came_in]
        return grads if isinstance(input_tensor, list) else grads[0]


def _only(tensor: Any) -> Any:
    return tensor[0] if isinstance(tensor, list) else tensor
