"""Image files to uint8 tensors; `mmtrain.io.image_codec` decodes them."""

import torch

from mmtrain.io import image_codec
from mmtrain.io.image_codec import Content, ImageError, check

__all__ = ["Content", "ImageError", "check", "decode"]


def decode(content: Content) -> torch.Tensor:
    """RGB pixels of an image file, upright, uint8 [3, H, W] in memory order H, W, 3; ImageError."""
    return torch.from_numpy(image_codec.decode(content)).permute(2, 0, 1)
