"""The sharded pieces every stack is made of; the only file of the model that names one.

Axes: S sequence, B or R rows, H width, A attention heads of this rank, D size of a head, K rank of LoRA's matrices.
"""

from dataclasses import dataclass, replace
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
from megatron.core.transformer.attention import CrossAttention
from megatron.core.transformer.transformer_config import TransformerConfig

from mmtrain.config.tuning import LoraConfig


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
        weight, bias = (met_by_part(param, self.meets_part) for param in (self.weight, self.bias))
        return F.layer_norm(hidden_SBH, weight.shape, weight, bias, self.eps)


def met_by_part(param: torch.Tensor, meets_part: bool) -> torch.Tensor:
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
        inner_SBK = F.linear(input_SBH, met_by_part(self.lora_a, self.sequence_parallel))
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
        lora_b = met_by_part(self.lora_b, self.sequence_parallel)
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


@dataclass(frozen=True)
class Matrices:
    """What a layer's matrices are, those that are cut along their outputs and along their inputs."""

    columns: type[ColumnParallelLinear]
    rows: type[RowParallelLinear]

    @classmethod
    def of(cls, lora: LoraConfig, kind: str) -> "Matrices":
        """With LoRA's small ones beside them where the run has them: a kind is "attention" or "mlp"."""
        if lora.rank and kind in lora.matrices:
            return cls(LowRankColumns, LowRankRows)
        return cls(ColumnParallelLinear, RowParallelLinear)


def left_empty(weight: torch.Tensor) -> torch.Tensor:
    """megatron's first values, which are not used: `weights.initialize` fills every layout alike."""
    return weight


def token_embedding(vocab_size: int, width: int, config: TransformerConfig) -> VocabParallelEmbedding:
    """Embeddings [V, H], cut along the vocabulary."""
    return VocabParallelEmbedding(vocab_size, width, init_method=left_empty, config=config)


def vocabulary_head(width: int, vocab_size: int, config: TransformerConfig) -> ColumnParallelLinear:
    """[N, H], the same on every tensor-parallel rank -> this rank's part of the logits [N, V / tp]."""
    config = replace(config, sequence_parallel=False)
    return ColumnParallelLinear(
        width, vocab_size, config=config, init_method=left_empty, bias=True, gather_output=False
    )
