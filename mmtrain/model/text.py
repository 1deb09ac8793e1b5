"""The text tower: tokens that look both ways or only back, row by row.

Axes: Y rows, T text positions.
"""

import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from mmtrain.config.depth import Part
from mmtrain.config.schema import ModelConfig
from mmtrain.model.layers import Norm, spread, token_embedding
from mmtrain.model.stack import Stack


class TextEmbedding(torch.nn.Module):
    """Token ids [Y, T] -> [T, Y, width], learned positions added."""

    def __init__(self, model: ModelConfig, config: TransformerConfig, vocab_size: int) -> None:
        super().__init__()
        self.tokens = token_embedding(vocab_size, model.text_width, config)
        self.positions = torch.nn.Parameter(torch.zeros(model.max_text_length, model.text_width))

    def forward(self, ids_YT: torch.Tensor) -> torch.Tensor:
        return self.tokens(ids_YT).transpose(0, 1) + self.positions[: ids_YT.shape[1], None]


class TextTower(torch.nn.Module):
    """Ids [Y, T], or the tokens of an earlier stage, and what each may look at [Y, 1, T, T] -> tokens [T, Y, width]."""

    def __init__(self, model: ModelConfig, config: TransformerConfig, part: Part, vocab_size: int) -> None:
        super().__init__()
        self.config, self.is_causal = config, model.text_attention == "causal"
        self.embedding = TextEmbedding(model, config, vocab_size) if part.begins("text") else None
        self.stack = Stack(config, part.layers("text"), with_images=False, recompute=model.recompute.text == "full")
        self.final_norm = Norm(config, model.text_width, config.layernorm_epsilon) if part.ends("text") else None

    def forward(self, ids_or_tokens: torch.Tensor, mask_Y1TT: torch.Tensor) -> torch.Tensor:
        tokens_TYH = ids_or_tokens
        if self.is_causal:
            mask_Y1TT = mask_Y1TT.tril()
        if self.embedding is not None:
            tokens_TYH = spread(self.embedding(ids_or_tokens), self.config)
        tokens_TYH = self.stack(tokens_TYH, mask_Y1TT)
        return tokens_TYH if self.final_norm is None else self.final_norm(tokens_TYH)
