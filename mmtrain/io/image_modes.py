"""Pillow's image modes to 8-bit RGB: 16-bit grey scaled, transparent pixels on white. No torch."""

import numpy as np
from PIL import Image

from mmtrain.io.errors import ImageError
from mmtrain.io.text import printable


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image in 8-bit RGB, on white where it is transparent; ImageError for modes without a stated range."""
    try:
        image = _in_8_bits(image)
        if not image.has_transparency_data:
            return image.convert("RGB")
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    except ImageError:
        raise
    except Exception as error:  # a palette or profile that cannot be applied
        raise ImageError("broken image", reason_of(error)) from error


def reason_of(error: Exception) -> str:
    """What a decoder says, in one line."""
    return printable(str(error)) or type(error).__name__


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, also where it fills 32, by its upper 8; convert() would make all above 255 white instead."""
    if image.mode == "F":
        raise ImageError("unsupported pixels", "floating point, whose range no file states; wanted 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    levels_HW = np.asarray(image)
    if image.mode == "I" and levels_HW.size:
        least, most = levels_HW.min(), levels_HW.max()
        if least < 0 or not 0xFF < most <= 0xFFFF:  # up to 255 they may be of 8 bits as well as of 16
            raise ImageError("unsupported pixels", f"32-bit grey from {least} to {most}; wanted 8 or 16 bits")
    grey = Image.fromarray((levels_HW >> 8).astype(np.uint8))
    if isinstance(clear := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(levels_HW == clear, 0, 255).astype(np.uint8)))
    return grey
