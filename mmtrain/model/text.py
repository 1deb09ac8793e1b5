"""The text tower: tokens that look both ways or only back, row by row.

Axes: Y rows, T text positions.
"""

import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from mmtrain.config.schema import ModelConfig
from mmtrain.model.layers import Norm, Stack, token_embedding


class TextEmbedding(torch.nn.Module):
    """Token ids [Y, T] -> [T, Y, width], learned positions added."""

    def __init__(self, model: ModelConfig, config: TransformerConfig, vocab_size: int) -> None:
        super().__init__()
        self.tokens = token_embedding(vocab_size, model.text_width, config)
        self.positions = torch.nn.Parameter(torch.zeros(model.max_text_length, model.text_width))

    def forward(self, ids_YT: torch.Tensor) -> torch.Tensor:
        return self.tokens(ids_YT).transpose(0, 1) + self.positions[: ids_YT.shape[1], None]


class TextTower(torch.nn.Module):
    """Ids [Y, T] and what each position may look at [Y, 1, T, T] -> text tokens [T, Y, text width]."""

    def __init__(self, model: ModelConfig, config: TransformerConfig, vocab_size: int) -> None:
        super().__init__()
        self.embedding = TextEmbedding(model, config, vocab_size)
        self.stack = Stack(config, with_images=False, recompute=model.recompute.text == "full")
        self.final_norm = Norm(config, model.text_width, model.norm_epsilon)

    def forward(self, ids_YT: torch.Tensor, mask_Y1TT: torch.Tensor) -> torch.Tensor:
        return self.final_norm(self.stack(self.embedding(ids_YT), mask_Y1TT))
