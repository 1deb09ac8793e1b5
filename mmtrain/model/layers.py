"""The sharded pieces every stack is made of; the only file of the model that names one.

Axes: S sequence, B or R rows, H width, A attention heads of this rank, D size of a head, K rank of LoRA's matrices.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
    scatter_to_sequence_parallel_region,
    set_tensor_model_parallel_attributes,
)
from megatron.core.transformer.attention import (
    CrossAttention,
    CrossAttentionSubmodules,
    SelfAttention,
    SelfAttentionSubmodules,
)
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityFuncOp, IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch.utils.checkpoint import checkpoint

from mmtrain.config.schema import ModelConfig, ParallelConfig
from mmtrain.config.shapes import inner_width, stack_activations, stack_norm_epsilons, stack_widths
from mmtrain.config.tuning import LoraConfig

OutputAndBias = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class ImageContext:
    """Image tokens that several text rows attend to: keys and values are computed once an image, then shared."""

    tokens_SBH: torch.Tensor
    row_image_R: torch.Tensor  # which image each row attends to


class Norm(torch.nn.Module):
    """Layer normalization over the last dim (Ba et al. 2016), with weight and bias."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(hidden_size))
        self.bias = torch.nn.Parameter(torch.zeros(hidden_size))
        self.eps, self.meets_part = eps, config.sequence_parallel

    def forward(self, hidden_SBH: torch.Tensor) -> torch.Tensor:
        weight, bias = (_met_by_part(param, self.meets_part) for param in (self.weight, self.bias))
        return F.layer_norm(hidden_SBH, weight.shape, weight, bias, self.eps)


def _met_by_part(param: torch.Tensor, meets_part: bool) -> torch.Tensor:
    """A replicated parameter; where this rank's tokens are only a part, its gradient is the sum over the ranks'."""
    return copy_to_tensor_model_parallel_region(param) if meets_part else param


def spread(tokens_SBH: torch.Tensor, config: TransformerConfig) -> torch.Tensor:
    """Under sequence parallelism this rank's part of the tokens (S must divide by tp), else all of them."""
    return scatter_to_sequence_parallel_region(tokens_SBH) if config.sequence_parallel else tokens_SBH


def gathered(part_SBH: torch.Tensor, config: TransformerConfig) -> torch.Tensor:
    """All tokens again, for what every rank computes alike."""
    if not config.sequence_parallel:
        return part_SBH
    return gather_from_sequence_parallel_region(part_SBH, tensor_parallel_output_grad=False)


@dataclass
class StackConfig(TransformerConfig):
    """megatron's description of a stack, and the small matrices beside its large ones."""

    lora: LoraConfig = LoraConfig()


class LowRankColumns(ColumnParallelLinear):
    """A matrix cut along its outputs with LoRA's two beside it: A is the same on every rank, B is cut as the matrix."""

    def __init__(self, input_size: int, output_size: int, *, config: StackConfig, **rest: Any) -> None:
        super().__init__(input_size, output_size, config=config, **rest)
        self.scale = config.lora.scale
        self.lora_a = torch.nn.Parameter(torch.zeros(config.lora.rank, input_size))
        self.lora_b = _cut_along(0, torch.zeros(self.output_size_per_partition, config.lora.rank))

    def forward(self, input_SBH: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        output, bias = super().forward(input_SBH, *args, **kwargs)
        inner_SBK = F.linear(input_SBH, _met_by_part(self.lora_a, self.sequence_parallel))
        # Every rank's outputs ask something of the inner tokens: what they ask is summed on the way back.
        if self.sequence_parallel:
            inner_SBK = gather_from_sequence_parallel_region(inner_SBK, tensor_parallel_output_grad=True)
        else:
            inner_SBK = copy_to_tensor_model_parallel_region(inner_SBK)
        return output + self.scale * F.linear(inner_SBK, self.lora_b), bias


class LowRankRows(RowParallelLinear):
    """A matrix cut along its inputs with LoRA's two beside it: A is cut as the matrix, B is the same on every rank."""

    def __init__(self, input_size: int, output_size: int, *, config: StackConfig, **rest: Any) -> None:
        super().__init__(input_size, output_size, config=config, **rest)
        self.scale = config.lora.scale
        self.lora_a = _cut_along(1, torch.zeros(config.lora.rank, self.input_size_per_partition))
        self.lora_b = torch.nn.Parameter(torch.zeros(output_size, config.lora.rank))

    def forward(self, input_SBH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        output, bias = super().forward(input_SBH)
        part_SBK = F.linear(input_SBH, self.lora_a)
        together = (
            reduce_scatter_to_sequence_parallel_region
            if self.sequence_parallel
            else reduce_from_tensor_model_parallel_region
        )
        lora_b = _met_by_part(self.lora_b, self.sequence_parallel)
        return output + self.scale * F.linear(together(part_SBK), lora_b), bias


def _cut_along(dim: int, values: torch.Tensor) -> torch.nn.Parameter:
    """This rank's part of a parameter that tensor parallelism cuts along `dim`."""
    param = torch.nn.Parameter(values)
    set_tensor_model_parallel_attributes(param, is_parallel=True, dim=dim, stride=1)
    return param


class FusedDotProductAttention(torch.nn.Module):
    """The core attention slot: torch's fused kernel, each row bidirectional or causal as its mask says."""

    def __init__(self, config: TransformerConfig, **_: object) -> None:
        super().__init__()

    def forward(
        self,
        query_SBAD: torch.Tensor,
        key_SBAD: torch.Tensor,
        value_SBAD: torch.Tensor,
        mask_B1SS: torch.Tensor | None,
        **_: object,
    ) -> torch.Tensor:
        """[S, B, A, D] three times and a mask, True where a query may look (None: everywhere) -> [S, B, A x D]."""
        query, key, value = (part.permute(1, 2, 0, 3) for part in (query_SBAD, key_SBAD, value_SBAD))
        if query.device.type == "cpu":
            # There the backward of the bf16 kernel takes five times that of the float32 one (torch 2.13, with AMX).
            query, key, value = query.float(), key.float(), value.float()
        seen_BASD = F.scaled_dot_product_attention(query, key, value, attn_mask=mask_B1SS)
        return seen_BASD.to(query_SBAD.dtype).permute(2, 0, 1, 3).flatten(2)


class SharedImageAttention(CrossAttention):
    """Cross-attention whose keys and values are projected once for each image, then handed to every row that asks."""

    def get_query_key_value_tensors(
        self, hidden_states: torch.Tensor, key_value_states: ImageContext, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        query, key, value = super().get_query_key_value_tensors(
            hidden_states, key_value_states.tokens_SBH, *args, **kwargs
        )
        rows = key_value_states.row_image_R
        return query, key.index_select(1, rows), value.index_select(1, rows)


def _residual(meets_part: bool) -> Callable[..., Callable[[OutputAndBias, torch.Tensor, float], torch.Tensor]]:
    """The residual slot: bias and residual, no dropout, since nothing random may depend on the layout."""

    def add(output_and_bias: OutputAndBias, residual_SBH: torch.Tensor, _: float) -> torch.Tensor:
        output_SBH, bias_H = output_and_bias
        return residual_SBH + output_SBH + _met_by_part(bias_H, meets_part)

    def slot(training: bool, fused: bool) -> Callable[[OutputAndBias, torch.Tensor, float], torch.Tensor]:
        return add

    return slot


@dataclass(frozen=True)
class Matrices:
    """What the matrices of a layer are made of: its attention's, and its MLP's."""

    columns: type[ColumnParallelLinear]
    rows: type[RowParallelLinear]

    @classmethod
    def of(cls, lora: LoraConfig, kind: str) -> "Matrices":
        """With LoRA's small ones beside them where the run has them at this kind."""
        if lora.rank and kind in lora.matrices:
            return cls(LowRankColumns, LowRankRows)
        return cls(ColumnParallelLinear, RowParallelLinear)


def _self_attention(matrices: Matrices) -> ModuleSpec:
    return ModuleSpec(
        module=SelfAttention,
        params={"attn_mask_type": AttnMaskType.arbitrary},
        submodules=SelfAttentionSubmodules(
            linear_qkv=matrices.columns, core_attention=FusedDotProductAttention, linear_proj=matrices.rows
        ),
    )


def _cross_attention(matrices: Matrices) -> ModuleSpec:
    return ModuleSpec(
        module=SharedImageAttention,
        params={"attn_mask_type": AttnMaskType.arbitrary},
        submodules=CrossAttentionSubmodules(
            linear_q=matrices.columns,
            linear_kv=matrices.columns,
            core_attention=FusedDotProductAttention,
            linear_proj=matrices.rows,
        ),
    )


def _layer_spec(with_images: bool, config: StackConfig) -> ModuleSpec:
    add = _residual(config.sequence_parallel)
    attention, mlp = Matrices.of(config.lora, "attention"), Matrices.of(config.lora, "mlp")
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=Norm,
            self_attention=_self_attention(attention),
            self_attn_bda=add,
            pre_cross_attn_layernorm=Norm if with_images else IdentityOp,
            cross_attention=_cross_attention(attention) if with_images else IdentityOp,
            cross_attn_bda=add if with_images else IdentityFuncOp,
            pre_mlp_layernorm=Norm,
            mlp=ModuleSpec(module=MLP, submodules=MLPSubmodules(linear_fc1=mlp.columns, linear_fc2=mlp.rows)),
            mlp_bda=add,
        ),
    )


def _left_empty(weight: torch.Tensor) -> torch.Tensor:
    """megatron's first values, which are not used: `weights.initialize` fills every layout alike."""
    return weight


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda hidden: hidden * torch.sigmoid(1.702 * hidden),  # Hendrycks and Gimpel 2016
}


def stack_config(
    model: ModelConfig, parallel: ParallelConfig, lora: LoraConfig, stack: str, num_layers: int
) -> StackConfig:
    """The description of `num_layers` layers of one of the stacks."""
    width = stack_widths(model)[stack]
    return StackConfig(
        lora=lora if stack in lora.stacks else LoraConfig(),
        num_layers=num_layers,
        hidden_size=width,
        num_attention_heads=width // model.head_size,
        kv_channels=model.head_size,
        ffn_hidden_size=inner_width(width, model.mlp_ratio),
        layernorm_epsilon=stack_norm_epsilons(model)[stack],
        tensor_model_parallel_size=parallel.tp,
        sequence_parallel=parallel.sequence_parallel,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bias_dropout_fusion=False,
        bias_activation_fusion=False,
        masked_softmax_fusion=False,
        gradient_accumulation_fusion=False,
        use_cpu_initialization=True,
        init_method=_left_empty,
        output_layer_init_method=_left_empty,
        activation_func=ACTIVATIONS[stack_activations(model)[stack]],
    )


class Stack(torch.nn.Module):
    """Pre-norm transformer layers (Xiong et al. 2020), their activations kept, or computed again where `recompute`."""

    def __init__(self, config: StackConfig, layers: range, *, with_images: bool, recompute: bool) -> None:
        super().__init__()
        spec = _layer_spec(with_images, config)
        # Named by their numbers in the whole stack, so that a weight has one name whichever stage holds it.
        self.layers = torch.nn.ModuleDict(
            {str(number): TransformerLayer(config, spec.submodules, layer_number=number + 1) for number in layers}
        )
        self.recompute = recompute
        for layer in self.layers.values():
            # megatron turns gradients on around every residual sum, also inside no_grad, where it would keep a graph
            layer.bias_dropout_add_exec_handler = contextlib.nullcontext

    def forward(
        self,
        hidden_SBH: torch.Tensor,
        mask_B1SS: torch.Tensor | None = None,
        images: ImageContext | None = None,
        images_mask_R11S: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[S, B, H] -> [S, B, H]. Masks are True where a query may look; None lets it look everywhere."""
        for layer in self.layers.values():
            recomputes = self.recompute and torch.is_grad_enabled() and _awaits_gradient(layer, hidden_SBH, images)
            step = self._recomputed if recomputes else self._kept
            hidden_SBH = step(layer, hidden_SBH, mask_B1SS, images, images_mask_R11S)
        return hidden_SBH

    @staticmethod
    def _kept(
        layer: TransformerLayer,
        hidden_SBH: torch.Tensor,
        mask: torch.Tensor | None,
        images: ImageContext | None,
        images_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        return layer(hidden_SBH, attention_mask=mask, context=images, context_mask=images_mask)[0]

    @classmethod
    def _recomputed(
        cls,
        layer: TransformerLayer,
        hidden_SBH: torch.Tensor,
        mask: torch.Tensor | None,
        images: ImageContext | None,
        images_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        # The image tokens go in as a tensor of their own: a reentrant checkpoint follows only those.
        tokens_SBH = None if images is None else images.tokens_SBH
        if not hidden_SBH.requires_grad:
            # And it runs backward only where one of them awaits a gradient: above frozen layers none would, and the
            # weights of this layer would learn nothing. torch's other kind does not know weights that ZeRO-3 let go.
            hidden_SBH = hidden_SBH.detach().requires_grad_()

        def again(hidden: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
            context = None if images is None else ImageContext(tokens, images.row_image_R)
            return cls._kept(layer, hidden, mask, context, images_mask)

        return checkpoint(again, hidden_SBH, tokens_SBH, use_reentrant=True, preserve_rng_state=False)


def _awaits_gradient(layer: TransformerLayer, hidden_SBH: torch.Tensor, images: ImageContext | None) -> bool:
    """Whether anything of a layer takes part in the backward pass; else there is nothing to compute again for."""
    comes_in = [hidden_SBH] if images is None else [hidden_SBH, images.tokens_SBH]
    return any(tensor.requires_grad for tensor in (*comes_in, *layer.parameters()))


def token_embedding(vocab_size: int, width: int, config: TransformerConfig) -> VocabParallelEmbedding:
    """Embeddings [V, H], cut along the vocabulary."""
    return VocabParallelEmbedding(vocab_size, width, init_method=_left_empty, config=config)


def vocabulary_head(width: int, vocab_size: int, config: TransformerConfig) -> ColumnParallelLinear:
    """[N, H], the same on every tensor-parallel rank -> this rank's part of the logits [N, V / tp]."""
    config = replace(config, sequence_parallel=False)
    return ColumnParallelLinear(
        width, vocab_size, config=config, init_method=_left_empty, bias=True, gather_output=False
    )
