"""Image codec: the one decoder of image files, for the builder, training, evaluation, processor and commands. No torch.

Formats are allow-listed (never EPS and others that start a program), and pixels and scans limited before anything is
decoded. Pixels come as 8-bit RGB: upright (`mmtrain.io.orientation`), the first frame, on white where transparent,
16-bit grey scaled. A file whose coded data is damaged or ends early is refused: its pixels would be made up.
"""

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from mmtrain.io.errors import ImageError
from mmtrain.io.file_kinds import HEAD_BYTES, describe_bytes
from mmtrain.io.image_modes import reason_of, to_rgb
from mmtrain.io.jpeg import JPEG_START, read_metadata
from mmtrain.io.orientation import SIDEWAYS, UPRIGHT, pillow_orientation, turn_upright

Content = bytes | memoryview
Size = tuple[int, int]  # width, height in pixels
SHARD_FORMATS = ("JPEG", "PNG", "WEBP")  # Pillow's names: of images in shards, and of what shards are built from
FILE_FORMATS = (*SHARD_FORMATS, "BMP", "GIF", "TIFF")  # of files and Pillow images that a model is shown
MAX_PIXELS = 64_000_000  # a small file may unpack to gigabytes; no photo for training is larger
MAX_SCANS = 64  # of a JPEG: encoders write some ten; each is a walk over all coefficients, and may take a few bytes
PLAIN_COLORS = ("YCbCr", "Gray", "RGB")  # color spaces of JPEGs that libjpeg-turbo converts to RGB
CHECK_SCALE = 8  # coded data is read to its end at any scale
_NAMES = {"WEBP": "WebP"}
_PNG_METADATA = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
# Warnings of libjpeg about what stands around the coded data; those about the data itself mean made-up pixels.
_HARMLESS = re.compile(r"extraneous bytes before marker|Invalid SOS parameters|JFIF revision|Adobe color transform")


class JpegHeader(NamedTuple):
    """What decides how a JPEG is decoded."""

    size: Size | None  # as stored; None where libjpeg-turbo does not read the header
    colors: str
    orientation: int


def decode(content: Content, formats: Sequence[str] = SHARD_FORMATS) -> np.ndarray:
    """Pixels of an image file, uint8 [H, W, 3]; ImageError where it cannot be used."""
    if not is_jpeg(content):
        image = load_image(open_image(content, formats))
        return turn_upright(_rgb_pixels(image), pillow_orientation(image))
    header = read_jpeg_header(content)
    pixels_HWC = decode_jpeg(content, header)
    if pixels_HWC is None:
        pixels_HWC = _rgb_pixels(load_image(open_image(content, formats)))
    return turn_upright(pixels_HWC, header.orientation)


def check(content: Content, formats: Sequence[str] = SHARD_FORMATS) -> None:
    """ImageError for the files for which `decode` raises it; of a JPEG only the coded data is decoded."""
    if not is_jpeg(content) or decode_jpeg(content, read_jpeg_header(content), scale=CHECK_SCALE) is None:
        decode(content, formats)


def read_size(content: bytes) -> Size:
    """Width and height of a shard's image as it is shown, read off its header; ImageError where that is of no use."""
    if is_jpeg(content):
        header = read_jpeg_header(content)
        size, orientation = header.size or open_image(content).size, header.orientation
    else:
        image = open_image(content)
        size, orientation = image.size, _orientation_of_header(image, content)
    return size[::-1] if orientation in SIDEWAYS else size


def decode_path(path: Path) -> np.ndarray:
    """Pixels of a file that a user names, uint8 [H, W, 3]; ImageError where it cannot be read or used."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise ImageError("file cannot be read", getattr(error, "strerror", None) or str(error)) from error
    return decode(content, FILE_FORMATS)


def decode_picture(image: Image.Image) -> np.ndarray:
    """Pixels of a Pillow image, uint8 [H, W, 3], by the rules for files; ImageError where it cannot be used."""
    if (content := _undecoded_jpeg(image)) is not None:
        return decode(content, FILE_FORMATS)
    if image.format not in (None, "MPO", *FILE_FORMATS):
        raise ImageError(
            f"not a {_listed(FILE_FORMATS)} image", f"{image.format}; its .convert('RGB') is taken as it is"
        )
    _check_num_pixels(image.size)
    load_image(image)
    return turn_upright(_rgb_pixels(image), pillow_orientation(image))


def is_jpeg(content: Content) -> bool:
    """Whether the bytes begin as those of a JPEG."""
    return content[:3] == JPEG_START


def read_jpeg_header(content: Content) -> JpegHeader:
    """Size, color space and orientation of a JPEG; ImageError where it has too many scans or pixels."""
    orientation, num_scans = read_metadata(content)
    if num_scans > MAX_SCANS:
        raise ImageError("too many scans", f"{num_scans} in a JPEG, at most {MAX_SCANS}")
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:  # Pillow has the last word
        return JpegHeader(None, "", orientation)
    _check_num_pixels((width, height))
    return JpegHeader((width, height), colors, orientation)


def decode_jpeg(content: Content, header: JpegHeader, colors: str = "RGB", scale: int = 1) -> np.ndarray | None:
    """Pixels of a JPEG as stored, by libjpeg-turbo: uint8 [H, W, C] in the color space `colors`, at 1/`scale`.

    None for the rare kinds and harmless defects that are left to Pillow; ImageError where pixels would be made up.
    """
    if header.size is None:
        return None
    is_plain = header.colors in PLAIN_COLORS
    colors, scale = (colors, scale) if is_plain else ("CMYK", CHECK_SCALE)  # Pillow does not tell of damage
    least = {}
    if scale > 1:
        least = {"min_width": -(-header.size[0] // scale), "min_height": -(-header.size[1] // scale)}
    try:
        pixels_HWC = simplejpeg.decode_jpeg(content, colors, min_factor=scale, **least)
    except (ValueError, MemoryError) as error:
        if _HARMLESS.search(str(error)):
            return None
        raise ImageError("broken image", str(error)) from error
    return pixels_HWC if is_plain else None


def open_image(content: Content, formats: Sequence[str] = SHARD_FORMATS) -> Image.Image:
    """Read the header by Pillow; ImageError where it is of no allowed format, or would unpack to too many pixels."""
    if not content:
        raise ImageError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=formats)
    except Image.UnidentifiedImageError as error:
        raise _unidentified(bytes(content[:HEAD_BYTES]), formats) from error
    except Image.DecompressionBombError as error:
        raise ImageError("too many pixels", f"at most {MAX_PIXELS} in all") from error
    except Exception as error:  # damaged headers end in whatever the parser stumbles over
        raise ImageError("broken image", reason_of(error)) from error
    _check_num_pixels(image.size)
    return image


def load_image(image: Image.Image) -> Image.Image:
    """Decode all pixels by Pillow; ImageError where the bytes end early or make no sense."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
    except Exception as error:  # damaged pixels end in whatever the decoder stumbles over
        raise ImageError("broken image", reason_of(error)) from error
    return image


def _rgb_pixels(image: Image.Image) -> np.ndarray:
    return np.array(to_rgb(image))


def _undecoded_jpeg(image: Image.Image) -> bytes | None:
    """The file behind a JPEG that Pillow has opened but not decoded; None for any other image."""
    is_lazy = image.format in ("JPEG", "MPO") and getattr(image, "tile", None) and getattr(image, "fp", None)
    if not is_lazy or getattr(image, "decoderconfig", ()) or image.tell():  # draft() and seek() chose something else
        return None
    try:
        position = image.fp.tell()
        image.fp.seek(0)
        content = image.fp.read()
        image.fp.seek(position)
    except Exception as error:  # the file was closed
        raise ImageError("broken image", reason_of(error)) from error
    return content


def _orientation_of_header(image: Image.Image, content: bytes) -> int:
    if image.format == "PNG":  # may state it behind the pixels, so it must be decoded, but few state any
        if not any(name in content for name in _PNG_METADATA):
            return UPRIGHT
        load_image(image)
    return pillow_orientation(image)


def _unidentified(head: bytes, formats: Sequence[str]) -> ImageError:
    kind = describe_bytes(head)
    if kind in (f"a {_NAMES.get(name, name)} image" for name in formats):
        return ImageError("broken image", "its header cannot be read")
    return ImageError(f"not a {_listed(formats)} image", f"it is {kind}" if kind else f"begins with {head[:8]!r}")


def _check_num_pixels(size: Size) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError("too many pixels", f"{size[0]} x {size[1]}, at most {MAX_PIXELS} in all")
    if not size[0] * size[1]:
        raise ImageError("broken image", f"{size[0]} x {size[1]} pixels")


def _listed(formats: Sequence[str]) -> str:
    names = [_NAMES.get(name, name) for name in formats]
    return f"{', '.join(names[:-1])} or {names[-1]}"
