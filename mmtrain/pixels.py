"""Image geometry and normalization, shared by training and the Hugging Face processor: cover, centre crop, [-1, 1]."""

import numpy as np
import torch

MAX_ASPECT = 8  # a longer strip is cut to this around its middle, else resizing its shorter side would fill the memory
PIXEL_MIDDLE = 127.5  # pixels become (value - middle) / middle, in [-1, 1]
Sides = tuple[int, int]  # height and width in pixels

# Another name of interpolate(mode="bicubic", antialias=True), and the only one that writes where it is told.
_resize_into = torch.ops.aten._upsample_bicubic2d_aa.out


def normalize(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels 0 to 255 to [-1, 1], in the dtype that is given; integers in float32."""
    values = pixels if pixels.is_floating_point() else pixels.float()
    return (values - PIXEL_MIDDLE) / PIXEL_MIDDLE


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


def resize(pixels_CHW: torch.Tensor, height: int, width: int, out_CHW: torch.Tensor | None = None) -> torch.Tensor:
    """Antialiased bicubic, as Pillow's, to uint8 [3, height, width]; written to `out_CHW` if given and needed."""
    if pixels_CHW.shape[1:] == (height, width):
        return pixels_CHW
    return resize_box(pixels_CHW.permute(1, 2, 0).numpy(), height, width, out_CHW)


def resize_box(box_HWC: np.ndarray, height: int, width: int, out_CHW: torch.Tensor | None) -> torch.Tensor:
    """As `resize`, of a box that was cut out of an image: uint8 [H, W, 3]."""
    if out_CHW is None:
        out_CHW = torch.empty(height, width, 3, dtype=torch.uint8).permute(2, 0, 1)
    # A box of an image has gaps between its rows; numpy closes them at twice the speed of torch.
    packed_1CHW = torch.from_numpy(np.ascontiguousarray(box_HWC)[None]).permute(0, 3, 1, 2)
    _resize_into(packed_1CHW, (height, width), False, None, None, out=out_CHW[None])
    return out_CHW


def _shorten(pixels_CHW: torch.Tensor) -> torch.Tensor:
    longest = MAX_ASPECT * min(pixels_CHW.shape[1:])
    top, left = (max(side - longest, 0) // 2 for side in pixels_CHW.shape[1:])
    return pixels_CHW[:, top : top + longest, left : left + longest]
