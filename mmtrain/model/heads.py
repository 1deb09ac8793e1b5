"""What is read off the tokens: two features that compare, a match, and tokens.

Axes: B samples, R rows, T text positions, S image tokens, E shared embedding, N picked positions,
V this rank's part of the vocabulary.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig

from mmtrain.config.schema import ItcConfig, ModelConfig
from mmtrain.config.shapes import inner_width, stack_heads, stack_norm_epsilons
from mmtrain.model.layers import vocabulary_head
from mmtrain.model.stack import ACTIVATIONS


class ImagePool(torch.nn.Module):
    """Image tokens [S, B, H] -> [B, H]: one learned query looks at all of them, an MLP follows (Zhai et al. 2022)."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        width, inner = model.vision_width, inner_width(model.vision_width, model.mlp_ratio)
        self.num_heads, self.activation = stack_heads(model)["vision"], ACTIVATIONS[model.vision_activation]
        self.probe = torch.nn.Parameter(torch.zeros(width))
        self.query = torch.nn.Linear(width, width)
        self.key_value = torch.nn.Linear(width, 2 * width)
        self.project = torch.nn.Linear(width, width)
        self.norm = torch.nn.LayerNorm(width, eps=stack_norm_epsilons(model)["vision"])
        self.widen = torch.nn.Linear(width, inner)
        self.narrow = torch.nn.Linear(inner, width)

    def forward(self, tokens_SBH: torch.Tensor) -> torch.Tensor:
        num_images = tokens_SBH.shape[1]
        query_B1H = self.query(self.probe.repeat(num_images, 1, 1))
        parts = (query_B1H, *self.key_value(tokens_SBH.transpose(0, 1)).chunk(2, dim=-1))
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        seen_BH = F.scaled_dot_product_attention(query, key, value).flatten(1)
        pooled_BH = self.project(seen_BH)
        return pooled_BH + self.narrow(self.activation(self.widen(self.norm(pooled_BH))))


class ContrastHead(torch.nn.Module):
    """Tokens of both towers -> unit features [B, E] in float32, and the learned temperature within its bounds."""

    def __init__(self, model: ModelConfig, itc: ItcConfig) -> None:
        super().__init__()
        self.image = torch.nn.Linear(model.vision_width, model.embedding_size, bias=False)
        self.text = torch.nn.Linear(model.text_width, model.embedding_size, bias=False)
        self.log_temperature = torch.nn.Parameter(torch.full((1,), math.log(itc.initial_temperature)))
        self.image_pool = ImagePool(model) if model.vision_pooling == "attention" else None
        self.reads_last = model.text_pooling == "last"
        self.bounds = (math.log(itc.min_temperature), math.log(itc.max_temperature))

    def forward(
        self, image_SBH: torch.Tensor, text_TBH: torch.Tensor, last_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        image_BH = image_SBH[0] if self.image_pool is None else self.image_pool(image_SBH)
        text_BH = text_TBH[last_B, torch.arange(len(last_B), device=last_B.device)] if self.reads_last else text_TBH[0]
        image_BE = F.normalize(self.image(image_BH).float(), dim=-1)
        text_BE = F.normalize(self.text(text_BH).float(), dim=-1)
        return image_BE, text_BE, _Held.apply(self.log_temperature.float(), *self.bounds).exp()


class _Held(torch.autograd.Function):
    """A value within its bounds. Beyond one, only a gradient that leads back passes: it neither drifts nor sticks."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, low: float, high: float) -> torch.Tensor:
        ctx.save_for_backward(value)
        ctx.bounds = low, high
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (value,), (low, high) = ctx.saved_tensors, ctx.bounds
        leads_out = ((value >= high) & (grad < 0)) | ((value <= low) & (grad > 0))
        return grad.masked_fill(leads_out, 0.0), None, None


class MatchHead(torch.nn.Module):
    """Fused [CLS] [R, H] -> two logits [R, 2]: apart, together."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.logits = torch.nn.Linear(model.hidden_size, 2)

    def forward(self, cls_RH: torch.Tensor) -> torch.Tensor:
        return self.logits(cls_RH).float()


class AnswerHead(torch.nn.Module):
    """Fused [CLS] of a question [R, H] -> a logit for each answer of a list [R, answers]."""

    def __init__(self, model: ModelConfig, num_answers: int) -> None:
        super().__init__()
        self.logits = torch.nn.Linear(model.hidden_size, num_answers)

    def forward(self, cls_RH: torch.Tensor) -> torch.Tensor:
        return self.logits(cls_RH).float()


class TokenHead(torch.nn.Module):
    """Fused tokens [N, H] -> logits [N, V] over this rank's part of the vocabulary, for masked and for next tokens."""

    def __init__(self, model: ModelConfig, config: TransformerConfig, vocab_size: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary_head(model.hidden_size, vocab_size, config)

    def forward(self, tokens_NH: torch.Tensor) -> torch.Tensor:
        return self.vocabulary(tokens_NH)[0]
