"""Image files to uint8 pixels of the model's size."""

import io
import re

import numpy as np
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import interpolate

MAX_PIXELS = 100_000_000  # a file that promises more is an attack or a mistake
MAX_ASPECT = 8  # a longer strip is cut to this around its middle, else resizing its shorter side would fill the memory
NUM_CROP_TRIES = 10
NAMES_A_SIDE = re.compile(r"\b(left|right)", re.IGNORECASE)


class ImageError(Exception):
    """These bytes are not an image that can be used; the message says why."""


def decode(content: bytes) -> torch.Tensor:
    """RGB pixels of an image file as they are stored, uint8 [3, H, W] in memory order H, W, 3; ImageError."""
    try:
        pixels = _decode_jpeg(content) if content[:2] == b"\xff\xd8" else None
        pixels = _decode_any(content) if pixels is None else pixels
    except UnidentifiedImageError as error:  # whose own words hold a memory address
        raise ImageError("the image cannot be decoded: it is of no known kind") from error
    # On damaged files the decoders raise nearly anything: struct.error, EOFError, KeyError.
    except Exception as error:
        raise ImageError(f"the image cannot be decoded: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _decode_jpeg(content: bytes) -> np.ndarray | None:
    """Pixels of a JPEG file, None for the rare kinds and small defects that only Pillow copes with."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
        if height * width > MAX_PIXELS or colors in ("CMYK", "YCCK"):
            return None
        return simplejpeg.decode_jpeg(content, "RGB")
    except ValueError:
        return None


def _decode_any(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return np.array(image.convert("RGB"))


def fit(pixels_CHW: torch.Tensor, size: int) -> torch.Tensor:
    """The shorter side resized to `size`, the middle of the longer one kept: uint8 [3, size, size]."""
    pixels_CHW = _shorten(pixels_CHW)
    height, width = pixels_CHW.shape[1:]
    shorter = min(height, width)
    resized_CHW = resize(pixels_CHW, size * height // shorter, size * width // shorter)
    top, left = (round((side - size) / 2) for side in resized_CHW.shape[1:])
    return resized_CHW[:, top : top + size, left : left + size]


def random_crop(pixels_CHW: torch.Tensor, size: int, min_share: float, numbers: np.random.Generator) -> torch.Tensor:
    """A random box of at least `min_share` of the area, 3:4 to 4:3, resized to uint8 [3, size, size].

    The box is drawn as in Szegedy et al., "Going deeper with convolutions", 2014; where none fits, the middle is kept.
    """
    height, width = pixels_CHW.shape[1:]
    for _ in range(NUM_CROP_TRIES):
        area = height * width * numbers.uniform(min_share, 1.0)
        aspect = np.exp(numbers.uniform(np.log(3 / 4), np.log(4 / 3)))
        box_width, box_height = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(numbers.integers(height - box_height + 1))
            left = int(numbers.integers(width - box_width + 1))
            return resize(pixels_CHW[:, top : top + box_height, left : left + box_width], size, size)
    return fit(pixels_CHW, size)


def resize(pixels_CHW: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Antialiased bicubic, as Pillow's, to uint8 [3, height, width]."""
    if pixels_CHW.shape[1:] == (height, width):
        return pixels_CHW
    return interpolate(pixels_CHW[None], (height, width), mode="bicubic", antialias=True)[0]


def mirror(pixels_CHW: torch.Tensor, caption: str, numbers: np.random.Generator) -> torch.Tensor:
    """Left and right exchanged half of the time, but never where the caption names one of them."""
    if NAMES_A_SIDE.search(caption) or numbers.random() >= 0.5:
        return pixels_CHW
    return pixels_CHW.flip(2)


def _shorten(pixels_CHW: torch.Tensor) -> torch.Tensor:
    longest = MAX_ASPECT * min(pixels_CHW.shape[1:])
    top, left = (max(side - longest, 0) // 2 for side in pixels_CHW.shape[1:])
    return pixels_CHW[:, top : top + longest, left : left + longest]
