"""The fusion stack: text rows that look at the tokens of their image.

Axes: B images, R rows, T text positions, S image tokens.
"""

import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from mmtrain.config.schema import ModelConfig
from mmtrain.model.layers import ImageContext, Norm, Stack


class FusionEntry(torch.nn.Module):
    """Bring both towers' tokens to the fusion width, and put one learned token where there is no image."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.image = _to_width(model.vision_width, model.hidden_size)
        self.text = _to_width(model.text_width, model.hidden_size)
        self.no_image = torch.nn.Parameter(torch.zeros(model.hidden_size))

    def forward(
        self, image_SBH: torch.Tensor, text_TRH: torch.Tensor, has_image_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tokens_SBH = self.image(image_SBH)
        first_1BH = torch.where(has_image_B[None, :, None], tokens_SBH[:1], self.no_image.to(tokens_SBH.dtype))
        return torch.cat([first_1BH, tokens_SBH[1:]]), self.text(text_TRH)


def _to_width(own: int, wanted: int) -> torch.nn.Module:
    return torch.nn.Identity() if own == wanted else torch.nn.Linear(own, wanted)


class Fusion(torch.nn.Module):
    """Text rows [T, R, text width] and image tokens [S, B, vision width] -> fused tokens [T, R, H]."""

    def __init__(self, model: ModelConfig, config: TransformerConfig) -> None:
        super().__init__()
        self.entry = FusionEntry(model)
        self.stack = Stack(config, with_images=True, recompute=model.recompute.fusion == "full")
        self.final_norm = Norm(config, model.hidden_size, model.norm_epsilon)

    def forward(
        self,
        image_SBH: torch.Tensor,
        text_TRH: torch.Tensor,
        mask_R1TT: torch.Tensor,
        row_image_R: torch.Tensor,
        has_image_B: torch.Tensor,
        all_images: bool,
    ) -> torch.Tensor:
        tokens_SBH, text_TRH = self.entry(image_SBH, text_TRH, has_image_B)
        images_mask_R11S = None if all_images else _image_mask(has_image_B, row_image_R, tokens_SBH.shape[0])
        context = ImageContext(tokens_SBH, row_image_R)
        return self.final_norm(self.stack(text_TRH, mask_R1TT, context, images_mask_R11S))


def _image_mask(has_image_B: torch.Tensor, row_image_R: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """[R, 1, 1, S]: every token where there is an image, else only the first, which stands for its absence."""
    is_first_S = torch.arange(num_tokens, device=has_image_B.device) == 0
    return (has_image_B[:, None] | is_first_S)[row_image_R][:, None, None, :]
