"""Pixels to the model's size: crop, resize, mirror, colour. All take and give uint8 [3, H, W]."""

import re

import numpy as np
import torch

MAX_ASPECT = 8  # a longer strip is cut to this around its middle, else resizing its shorter side would fill the memory
NUM_CROP_TRIES = 10
NAMES_A_SIDE = re.compile(r"\b(left|right)", re.IGNORECASE)
LUMA = (0.299, 0.587, 0.114)  # of R, G, B in the brightness that is seen (ITU-R BT.601)
Sides = tuple[int, int]  # height and width in pixels


# Another name of interpolate(mode="bicubic", antialias=True), and the only one that writes where it is told.
_resize_into = torch.ops.aten._upsample_bicubic2d_aa.out


def fit(pixels_CHW: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Resized to cover `sides`, the middle of what is longer kept: uint8 [3, *sides]."""
    pixels_CHW = _shorten(pixels_CHW)
    (height, width), (wanted_height, wanted_width) = pixels_CHW.shape[1:], sides
    if height * wanted_width >= width * wanted_height:
        resized_CHW = resize(pixels_CHW, wanted_width * height // width, wanted_width)
    else:
        resized_CHW = resize(pixels_CHW, wanted_height, wanted_height * width // height)
    top, left = (round((side - wanted) / 2) for side, wanted in zip(resized_CHW.shape[1:], sides, strict=True))
    return resized_CHW[:, top : top + wanted_height, left : left + wanted_width]


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
    return _resized(box_HWC, *sides, out_CHW)


def resize(pixels_CHW: torch.Tensor, height: int, width: int, out_CHW: torch.Tensor | None = None) -> torch.Tensor:
    """Antialiased bicubic, as Pillow's, to uint8 [3, height, width]; written to `out_CHW` if given and needed."""
    if pixels_CHW.shape[1:] == (height, width):
        return pixels_CHW
    return _resized(pixels_CHW.permute(1, 2, 0).numpy(), height, width, out_CHW)


def _resized(pixels_HWC: np.ndarray, height: int, width: int, out_CHW: torch.Tensor | None) -> torch.Tensor:
    if out_CHW is None:
        out_CHW = torch.empty(height, width, 3, dtype=torch.uint8).permute(2, 0, 1)
    # A box of an image has gaps between its rows; numpy closes them at twice the speed of torch.
    packed_1CHW = torch.from_numpy(np.ascontiguousarray(pixels_HWC)[None]).permute(0, 3, 1, 2)
    _resize_into(packed_1CHW, (height, width), False, None, None, out=out_CHW[None])
    return out_CHW


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


def _shorten(pixels_CHW: torch.Tensor) -> torch.Tensor:
    longest = MAX_ASPECT * min(pixels_CHW.shape[1:])
    top, left = (max(side - longest, 0) // 2 for side in pixels_CHW.shape[1:])
    return pixels_CHW[:, top : top + longest, left : left + longest]
