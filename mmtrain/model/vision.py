"""The vision tower: a ViT over patches (Dosovitskiy et al. 2021).

Axes: B images, C channels, H and W pixels, N patches, P pixel values of a patch, S tokens ([CLS] first).
"""

import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig

from mmtrain.config.schema import ModelConfig
from mmtrain.model.layers import Norm, Stack

MIDDLE_PIXEL = 127.5  # pixels become (value - middle) / middle, in [-1, 1]


class PatchEmbedding(torch.nn.Module):
    """uint8 pixels [B, 3, H, W] -> tokens [S, B, width], [CLS] first, learned positions added."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.patch_size = model.patch_size
        self.patches = torch.nn.Linear(3 * model.patch_size**2, model.vision_width)
        self.cls = torch.nn.Parameter(torch.zeros(model.vision_width))
        self.positions = torch.nn.Parameter(torch.zeros(model.num_patches + 1, model.vision_width))

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        pixels_BCHW = (images_BCHW.to(self.patches.weight.dtype) - MIDDLE_PIXEL) / MIDDLE_PIXEL
        patches_BPN = F.unfold(pixels_BCHW, kernel_size=self.patch_size, stride=self.patch_size)
        tokens_NBH = self.patches(patches_BPN.permute(2, 0, 1))
        cls_1BH = self.cls.expand(1, tokens_NBH.shape[1], -1)
        return torch.cat([cls_1BH, tokens_NBH]) + self.positions[:, None]


class VisionTower(torch.nn.Module):
    """Images [B, 3, H, W] -> image tokens [S, B, vision width]."""

    def __init__(self, model: ModelConfig, config: TransformerConfig) -> None:
        super().__init__()
        self.embedding = PatchEmbedding(model)
        self.stack = Stack(config, with_images=False, recompute=model.recompute.vision == "full")
        self.final_norm = Norm(config, model.vision_width, model.norm_epsilon)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.final_norm(self.stack(self.embedding(images_BCHW)))
