"""Images on their way into a shard: looked at to the last byte, turned upright, made smaller, or left as they are."""

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from data_tools.bicubic import as_image, resize
from data_tools.left_out import Unusable
from data_tools.looks import look_of
from mmtrain.data.sidecar import PREFERRED
from mmtrain.io.image_codec import (
    ImageError,
    JpegHeader,
    Size,
    decode_jpeg,
    is_jpeg,
    load_image,
    open_image,
    read_jpeg_header,
    read_size,
    to_rgb,
)
from mmtrain.io.orientation import SIDEWAYS, UPRIGHT, pillow_orientation, turn_upright

EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}  # Pillow's names; MPO: JPEG with extras
PLAIN_MODES = ("RGB", "L", "P")  # what any reader turns to RGB in the same way
SCALES = (8, 4, 2)  # what a JPEG can be divided by while it is decoded, without a loss that would be seen
LOOK_PIXELS = 128  # of either side; decoded smaller, copies of different sizes would look less alike
PIXELS = "RGBX"  # four bytes are resized faster than three
SUBSAMPLING = "420"  # color at half the resolution, as most JPEGs have it


@dataclass(frozen=True)
class ImageRules:
    """What is done to images."""

    resize: int | None = None  # pixels of the shorter side; smaller images stay as they are
    min_side: int = 1  # pixels of the shorter side; smaller images are left out
    max_aspect: float | None = None  # longer side through shorter; images above are left out
    quality: int = 95  # of a JPEG that must be written anew
    reencode: bool = False  # write every image anew as a JPEG; else the bytes stay where they may
    looks: bool = False  # note what each image looks like, to find copies


@dataclass(frozen=True)
class PreparedImage:
    """An image as it enters a shard."""

    content: bytes
    extension: str
    size: Size
    original_size: Size
    look: bytes | None = None


def prepare_image(content: bytes, rules: ImageRules) -> PreparedImage:
    """Check that the image can be decoded to its end, and bring it into the shape that `rules` ask for.

    The bytes stay as they are where they may; otherwise the image is written anew as a JPEG: upright, first frame,
    on white where it is transparent. Unusable where it cannot be read or is too small, too large or too long.
    """
    try:
        header = read_jpeg_header(content) if is_jpeg(content) else None
        prepared = _prepare_jpeg(content, header, rules) if header else None
        return prepared or _prepare_any(content, header, rules)
    except ImageError as error:
        raise Unusable(error.reason, error.detail) from error


def _prepare_jpeg(content: bytes, header: JpegHeader, rules: ImageRules) -> PreparedImage | None:
    """A JPEG decoded and encoded by libjpeg-turbo; None for the rare kinds that it leaves to Pillow."""
    if (size := header.size) is None:
        return None
    _check_size(size, rules)
    target = _target_size(size, rules.resize)
    keep = target == size and not rules.reencode and header.orientation == UPRIGHT
    # Where only the check needs the pixels, an eighth of them tells as much: the coded data is read to its end.
    least = (1, 1) if keep else target
    if rules.looks:
        least = (max(least[0], LOOK_PIXELS), max(least[1], LOOK_PIXELS))
    pixels = decode_jpeg(content, header, PIXELS, _scale(size, least))
    if pixels is None:
        return None
    if keep:
        return PreparedImage(content, "jpg", size, size, look_of(as_image(pixels)) if rules.looks else None)
    pixels = turn_upright(pixels, header.orientation)
    look = look_of(as_image(pixels)) if rules.looks else None
    upright = target if header.orientation not in SIDEWAYS else target[::-1]
    written = simplejpeg.encode_jpeg(resize(pixels, upright), rules.quality, PIXELS, SUBSAMPLING, fastdct=False)
    return PreparedImage(written, "jpg", upright, size, look)


def _prepare_any(content: bytes, header: JpegHeader | None, rules: ImageRules) -> PreparedImage:
    """Any image, decoded and encoded by Pillow; `header` is that of a JPEG."""
    image = open_image(content)
    original_size = image.size
    _check_size(original_size, rules)
    target = _target_size(original_size, rules.resize)
    if header is None:
        load_image(image)  # a PNG may state its orientation behind the pixels
    orientation = header.orientation if header else pillow_orientation(image)
    if target == original_size and not rules.reencode and orientation == UPRIGHT and not _must_change(image):
        load_image(image)
        extension = EXTENSIONS[image.format or ""]
        return PreparedImage(content, extension, original_size, original_size, _look(image, rules))
    image.draft(None, target)  # a JPEG decodes at 1/2, 1/4 or 1/8 of its size for a fraction of the cost
    flat = to_rgb(load_image(image))
    small = flat.resize(target, Image.Resampling.BICUBIC) if flat.size != target else flat
    upright = Image.fromarray(turn_upright(np.asarray(small), orientation))
    written = io.BytesIO()
    upright.save(written, "JPEG", quality=rules.quality)
    return PreparedImage(written.getvalue(), "jpg", upright.size, original_size, _look(upright, rules))


def image_extension(parts: Iterable[str]) -> str | None:
    """The extension under which a sample keeps its image."""
    return next((extension for extension in PREFERRED["image"] if extension in set(parts)), None)


def upright_size(content: bytes) -> Size | None:
    """Width and height as the image is shown, read off its header; None where it has none that can be read."""
    try:
        return read_size(content)
    except ImageError:
        return None


def check_image(content: bytes) -> Size:
    """Width and height of an image that can be decoded to its end; Unusable where it cannot."""
    return prepare_image(content, ImageRules()).original_size


def _scale(size: Size, target: Size) -> int:
    """The largest scale at which no side falls below `target`."""
    fits = (scale for scale in SCALES if size[0] >= target[0] * scale and size[1] >= target[1] * scale)
    return next(fits, 1)


def _check_size(size: Size, rules: ImageRules) -> None:
    width, height = size
    if min(size) < rules.min_side:
        raise Unusable("too small", f"{width} x {height} pixels, --min-side is {rules.min_side}")
    if rules.max_aspect is not None and max(size) > rules.max_aspect * min(size):
        raise Unusable("too long", f"{width} x {height} pixels, --max-aspect is {rules.max_aspect:g}")


def _target_size(size: Size, resize: int | None) -> Size:
    shorter = min(size)
    if resize is None or shorter <= resize:
        return size
    width, height = (round(side * resize / shorter) for side in size)
    return width, height


def _must_change(image: Image.Image) -> bool:
    """Whether readers could disagree about what this image looks like."""
    animated = image.format != "MPO" and getattr(image, "is_animated", False)
    return image.mode not in PLAIN_MODES or image.has_transparency_data or animated


def _look(image: Image.Image, rules: ImageRules) -> bytes | None:
    return look_of(image) if rules.looks else None
