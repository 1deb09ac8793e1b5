"""The transformer layers of one stack, as many as are here: what they are made of, and how they are run.

Axes: S sequence, B or R rows, H width.
"""

import contextlib
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from megatron.core.transformer.attention import (
    CrossAttentionSubmodules,
    SelfAttention,
    SelfAttentionSubmodules,
)
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityFuncOp, IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch.utils.checkpoint import checkpoint

from mmtrain.config.schema import ModelConfig, ParallelConfig
from mmtrain.config.shapes import inner_width, stack_activations, stack_norm_epsilons, stack_widths
from mmtrain.config.tuning import LoraConfig
from mmtrain.model.layers import (
    FusedDotProductAttention,
    ImageContext,
    Matrices,
    Norm,
    SharedImageAttention,
    StackConfig,
    left_empty,
    met_by_part,
)

OutputAndBias = tuple[torch.Tensor, torch.Tensor]


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
        init_method=left_empty,
        output_layer_init_method=left_empty,
        activation_func=ACTIVATIONS[stack_activations(model)[stack]],
    )


def _residual(meets_part: bool) -> Callable[..., Callable[[OutputAndBias, torch.Tensor, float], torch.Tensor]]:
    """The residual slot: bias and residual, no dropout, since nothing random may depend on the layout."""

    def add(output_and_bias: OutputAndBias, residual_SBH: torch.Tensor, _: float) -> torch.Tensor:
        output_SBH, bias_H = output_and_bias
        return residual_SBH + output_SBH + met_by_part(bias_H, meets_part)

    def slot(training: bool, fused: bool) -> Callable[[OutputAndBias, torch.Tensor, float], torch.Tensor]:
        return add

    return slot


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
