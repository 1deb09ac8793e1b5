"""The vision tower: a ViT over patches (Dosovitskiy et al. 2021).

Axes: B images, C channels, H and W pixels, N patches, P pixel values of a patch, S tokens ([CLS] first).
"""

import math

import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig

from mmtrain.config.depth import Part
from mmtrain.config.schema import ModelConfig
from mmtrain.model.layers import Norm, spread
from mmtrain.model.stack import Stack
from mmtrain.pixels import normalize


class PatchEmbedding(torch.nn.Module):
    """uint8 pixels [B, 3, H, W] -> [S, B, width]: [CLS] if any and patches, with positions, zeros up to `unit`.

    The learned positions are those of a square; for images of another shape they are read off between, bicubic.
    """

    def __init__(self, model: ModelConfig, unit: int) -> None:
        super().__init__()
        self.patch_size, self.grid_side, self.unit = model.patch_size, model.image_size // model.patch_size, unit
        self.patches = torch.nn.Linear(3 * model.patch_size**2, model.vision_width)
        self.cls = torch.nn.Parameter(torch.zeros(model.vision_width)) if model.vision_class_token else None
        self.positions = torch.nn.Parameter(torch.zeros(model.image_length, model.vision_width))

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        pixels_BCHW = normalize(images_BCHW.to(self.patches.weight.dtype))
        patches_BPN = F.unfold(pixels_BCHW, kernel_size=self.patch_size, stride=self.patch_size)
        tokens_SBH = self.patches(patches_BPN.permute(2, 0, 1))
        if self.cls is not None:
            tokens_SBH = torch.cat([self.cls.expand(1, tokens_SBH.shape[1], -1), tokens_SBH])
        height, width = (side // self.patch_size for side in images_BCHW.shape[2:])
        tokens_SBH = tokens_SBH + self._positions_of(height, width)[:, None]
        num_fillers = -len(tokens_SBH) % self.unit
        return F.pad(tokens_SBH, (0, 0, 0, 0, 0, num_fillers)) if num_fillers else tokens_SBH

    def _positions_of(self, height: int, width: int) -> torch.Tensor:
        """The position of [CLS] if any, then those of a grid of patches, [S, vision width]."""
        return positions_on_grid(self.positions, len(self.positions) - self.grid_side**2, height, width)


def positions_on_grid(positions_SH: torch.Tensor, num_first: int, height: int, width: int) -> torch.Tensor:
    """Learned positions of a square of patches, behind `num_first` others, for a grid of patches of another shape.

    What lies between is read off bicubic, corners not aligned, as fine-tuning of ViTs does (Touvron et al. 2021).
    """
    side = math.isqrt(len(positions_SH) - num_first)
    if (height, width) == (side, side):
        return positions_SH
    first_SH, square_NH = positions_SH.tensor_split([num_first])
    square_1HYX = square_NH.float().view(1, side, side, -1).permute(0, 3, 1, 2)
    grid_1HYX = F.interpolate(square_1HYX, (height, width), mode="bicubic", align_corners=False)
    return torch.cat([first_SH, grid_1HYX.flatten(2)[0].T.to(first_SH.dtype)])


class VisionTower(torch.nn.Module):
    """Images [B, 3, H, W], or the tokens of an earlier stage -> image tokens [S, B, vision width]."""

    def __init__(self, model: ModelConfig, config: TransformerConfig, part: Part, unit: int) -> None:
        super().__init__()
        self.config, self.unit = config, unit
        self.embedding = PatchEmbedding(model, unit) if part.begins("vision") else None
        has_entry_norm = part.begins("vision") and model.vision_entry_norm
        self.entry_norm = Norm(config, model.vision_width, config.layernorm_epsilon) if has_entry_norm else None
        self.stack = Stack(config, part.layers("vision"), with_images=False, recompute=model.recompute.vision == "full")
        self.final_norm = Norm(config, model.vision_width, config.layernorm_epsilon) if part.ends("vision") else None

    def forward(self, images_or_tokens: torch.Tensor, num_real: int) -> torch.Tensor:
        """`num_real` of the tokens are [CLS] and patches; what fills them up is seen by none."""
        tokens_SBH = images_or_tokens
        if self.embedding is not None:
            tokens_SBH = spread(self.embedding(images_or_tokens), self.config)
        if self.entry_norm is not None:
            tokens_SBH = self.entry_norm(tokens_SBH)
        tokens_SBH = self.stack(tokens_SBH, self._mask(num_real, tokens_SBH.device))
        return tokens_SBH if self.final_norm is None else self.final_norm(tokens_SBH)

    def _mask(self, num_real: int, device: torch.device) -> torch.Tensor | None:
        num_fillers = -num_real % self.unit
        if num_fillers == 0:
            return None
        return (torch.arange(num_real + num_fillers, device=device) < num_real)[None, None, None]
