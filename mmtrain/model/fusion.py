"""The fusion stack: text rows that look at the tokens of their image.

Axes: B images, R rows, T text positions, S image tokens.
"""

import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from mmtrain.config.depth import Part
from mmtrain.config.schema import ModelConfig
from mmtrain.model.layers import ImageContext, Norm, gathered, spread
from mmtrain.model.stack import Stack


class FusionEntry(torch.nn.Module):
    """Bring both towers' tokens to the fusion width, and put one learned token where there is no image."""

    def __init__(self, model: ModelConfig, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.image = _to_width(model.vision_width, model.hidden_size)
        self.text = _to_width(model.text_width, model.hidden_size)
        self.no_image = torch.nn.Parameter(torch.zeros(model.hidden_size))

    def forward(
        self, image_SBH: torch.Tensor, text_TRH: torch.Tensor, has_image_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tokens_SBH = gathered(image_SBH, self.config)
        if self.image is not None:
            tokens_SBH = self.image(tokens_SBH)
        if self.text is not None:
            text_TRH = spread(self.text(gathered(text_TRH, self.config)), self.config)
        first_1BH = torch.where(has_image_B[None, :, None], tokens_SBH[:1], self.no_image.to(tokens_SBH.dtype))
        return spread(torch.cat([first_1BH, tokens_SBH[1:]]), self.config), text_TRH


def _to_width(own: int, wanted: int) -> torch.nn.Linear | None:
    return None if own == wanted else torch.nn.Linear(own, wanted)


class Fusion(torch.nn.Module):
    """Text rows [T, R, width] and image tokens [S, B, width] -> fused tokens [T, R, H]."""

    def __init__(self, model: ModelConfig, config: TransformerConfig, part: Part, unit: int) -> None:
        super().__init__()
        self.unit = unit  # image tokens are filled up to a multiple of it
        self.entry = FusionEntry(model, config) if part.begins("fusion") else None
        self.stack = Stack(config, part.layers("fusion"), with_images=True, recompute=model.recompute.fusion == "full")
        self.final_norm = Norm(config, model.hidden_size, model.norm_epsilon) if part.ends("fusion") else None

    def forward(
        self,
        image_SBH: torch.Tensor,
        text_TRH: torch.Tensor,
        mask_R1TT: torch.Tensor,
        row_image_R: torch.Tensor,
        images_mask_R11S: torch.Tensor | None,
    ) -> torch.Tensor:
        tokens_TRH = self.stack(text_TRH, mask_R1TT, ImageContext(image_SBH, row_image_R), images_mask_R11S)
        return tokens_TRH if self.final_norm is None else self.final_norm(tokens_TRH)

    def image_mask(
        self, has_image_B: torch.Tensor, row_image_R: torch.Tensor, num_real: int, all_images: bool
    ) -> torch.Tensor | None:
        """[R, 1, 1, S]: the `num_real` first tokens of an image, or where there is none the one that stands for it."""
        num_fillers = -num_real % self.unit
        if all_images and num_fillers == 0:
            return None
        place_S = torch.arange(num_real + num_fillers, device=has_image_B.device)
        seen_BS = (place_S == 0) | (has_image_B[:, None] & (place_S < num_real))
        return seen_BS[row_image_R][:, None, None, :]
