"""The vision tower: a ViT over patches (Dosovitskiy et al. 2021).

Axes: B images, C channels, H and W pixels, N patches, P pixel values of a patch, S tokens ([CLS] first).
"""

import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig

from mmtrain.config.depth import Part
from mmtrain.config.schema import ModelConfig
from mmtrain.model.layers import Norm, Stack, spread

MIDDLE_PIXEL = 127.5  # pixels become (value - middle) / middle, in [-1, 1]


class PatchEmbedding(torch.nn.Module):
    """uint8 pixels [B, 3, H, W] -> [S, B, width]: [CLS] if any, patches, zeros up to `num_tokens`; positions added."""

    def __init__(self, model: ModelConfig, num_tokens: int) -> None:
        super().__init__()
        self.patch_size, self.num_fillers = model.patch_size, num_tokens - model.image_length
        self.patches = torch.nn.Linear(3 * model.patch_size**2, model.vision_width)
        self.cls = torch.nn.Parameter(torch.zeros(model.vision_width)) if model.vision_class_token else None
        self.positions = torch.nn.Parameter(torch.zeros(model.image_length, model.vision_width))

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        pixels_BCHW = (images_BCHW.to(self.patches.weight.dtype) - MIDDLE_PIXEL) / MIDDLE_PIXEL
        patches_BPN = F.unfold(pixels_BCHW, kernel_size=self.patch_size, stride=self.patch_size)
        tokens_SBH = self.patches(patches_BPN.permute(2, 0, 1))
        if self.cls is not None:
            tokens_SBH = torch.cat([self.cls.expand(1, tokens_SBH.shape[1], -1), tokens_SBH])
        tokens_SBH = tokens_SBH + self.positions[:, None]
        return F.pad(tokens_SBH, (0, 0, 0, 0, 0, self.num_fillers)) if self.num_fillers else tokens_SBH


class VisionTower(torch.nn.Module):
    """Images [B, 3, H, W], or the tokens of an earlier stage -> image tokens [S, B, vision width]."""

    def __init__(self, model: ModelConfig, config: TransformerConfig, part: Part, num_tokens: int) -> None:
        super().__init__()
        self.config, self.num_real, self.num_tokens = config, model.image_length, num_tokens
        self.embedding = PatchEmbedding(model, num_tokens) if part.begins("vision") else None
        has_entry_norm = part.begins("vision") and model.vision_entry_norm
        self.entry_norm = Norm(config, model.vision_width, config.layernorm_epsilon) if has_entry_norm else None
        self.stack = Stack(config, part.layers("vision"), with_images=False, recompute=model.recompute.vision == "full")
        self.final_norm = Norm(config, model.vision_width, config.layernorm_epsilon) if part.ends("vision") else None

    def forward(self, images_or_tokens: torch.Tensor) -> torch.Tensor:
        tokens_SBH = images_or_tokens
        if self.embedding is not None:
            tokens_SBH = spread(self.embedding(images_or_tokens), self.config)
        if self.entry_norm is not None:
            tokens_SBH = self.entry_norm(tokens_SBH)
        tokens_SBH = self.stack(tokens_SBH, self._mask(tokens_SBH.device))
        return tokens_SBH if self.final_norm is None else self.final_norm(tokens_SBH)

    def _mask(self, device: torch.device) -> torch.Tensor | None:
        if self.num_tokens == self.num_real:
            return None
        return (torch.arange(self.num_tokens, device=device) < self.num_real)[None, None, None]
