"""What is read off the tokens: two features that compare, a match, and tokens.

Axes: B samples, R rows, T text positions, E shared embedding, N picked positions, V this rank's part of the vocabulary.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig

from mmtrain.config.schema import ItcConfig, ModelConfig
from mmtrain.model.layers import vocabulary_head


class ContrastHead(torch.nn.Module):
    """[CLS] of both towers -> unit features [B, E] in float32, and the learned temperature within its bounds."""

    def __init__(self, model: ModelConfig, itc: ItcConfig) -> None:
        super().__init__()
        self.image = torch.nn.Linear(model.vision_width, model.embedding_size, bias=False)
        self.text = torch.nn.Linear(model.text_width, model.embedding_size, bias=False)
        self.log_temperature = torch.nn.Parameter(torch.full((1,), math.log(itc.initial_temperature)))
        self.bounds = (math.log(itc.min_temperature), math.log(itc.max_temperature))

    def forward(self, image_BH: torch.Tensor, text_BH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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


class TokenHead(torch.nn.Module):
    """Fused tokens [N, H] -> logits [N, V] over this rank's part of the vocabulary, for masked and for next tokens."""

    def __init__(self, model: ModelConfig, config: TransformerConfig, vocab_size: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary_head(model.hidden_size, vocab_size, config)

    def forward(self, tokens_NH: torch.Tensor) -> torch.Tensor:
        return self.vocabulary(tokens_NH)[0]
