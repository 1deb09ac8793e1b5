"""Augmentation: random crop, mirror, colour jitter. All take and give uint8 [3, H, W]."""

import re

import numpy as np
import torch

from mmtrain.pixels import Sides, fit, resize, resize_box

__all__ = ["fit", "jitter", "mirror", "random_crop", "resize"]

NUM_CROP_TRIES = 10
NAMES_A_SIDE = re.compile(r"\b(left|right)", re.IGNORECASE)
LUMA = (0.299, 0.587, 0.114)  # of R, G, B in the brightness that is seen (ITU-R BT.601)


def random_crop(
    pixels_CHW: torch.Tensor,
    sides: Sides,
    min_share: float,
    numbers: np.random.Generator,
    out_CHW: torch.Tensor | None = None,
) -> torch.Tensor:
    """A random box of at least `min_share` of the area, resized to uint8 [3, *sides]; see `resize`.

    Its aspect is that of `sides` times 3:4 to 4:3. It is drawn as in Szegedy et al., "Going deeper with convolutions",
    2014; where none fits, it is the largest in the middle that has such an aspect. It is cut before the resize: it lies
    on whole pixels, so the outcome is the same.
    """
    (height, width), shape = pixels_CHW.shape[1:], sides[1] / sides[0]
    for share, aspect, across, down in numbers.random((NUM_CROP_TRIES, 4)).tolist():
        area = height * width * (min_share + (1 - min_share) * share)
        aspect = shape * (3 / 4) ** (1 - 2 * aspect)
        box_width, box_height = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = int(down * (height - box_height + 1)), int(across * (width - box_width + 1))
            break
    else:
        box_width = max(1, min(width, round(height * shape * 4 / 3)))
        box_height = max(1, min(height, round(width / shape * 4 / 3)))
        top, left = (height - box_height) // 2, (width - box_width) // 2
    box_HWC = pixels_CHW.permute(1, 2, 0).numpy()[top : top + box_height, left : left + box_width]
    return resize_box(box_HWC, *sides, out_CHW)


def mirror(pixels_CHW: torch.Tensor, caption: str, numbers: np.random.Generator) -> torch.Tensor:
    """Left and right exchanged half of the time, but never where the caption names one of them."""
    if NAMES_A_SIDE.search(caption) or numbers.random() >= 0.5:
        return pixels_CHW
    return pixels_CHW.flip(2)


def jitter(pixels_CHW: torch.Tensor, share: float, numbers: np.random.Generator) -> torch.Tensor:
    """Brightness, contrast and saturation, in this order, each times a random factor within 1 - share and 1 + share."""
    brightness, contrast, saturation = numbers.uniform(1 - share, 1 + share, 3).tolist()
    shown_CHW = (pixels_CHW.float() * brightness).clamp_(0, 255)
    luma_HW = torch.tensordot(torch.tensor(LUMA), shown_CHW, 1)
    shown_CHW = torch.lerp(luma_HW.mean(), shown_CHW, contrast).clamp_(0, 255)
    luma_HW = torch.tensordot(torch.tensor(LUMA), shown_CHW, 1)
    return torch.lerp(luma_HW.expand_as(shown_CHW), shown_CHW, saturation).clamp_(0, 255).round_().to(torch.uint8)
