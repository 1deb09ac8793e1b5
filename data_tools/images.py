"""Images on their way into a shard: looked at to the last byte, turned upright, made smaller, or left as they are."""

import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from data_tools.bicubic import as_image, resize
from data_tools.jpeg import MAX_SCANS, ORIENTATION_TAG, UPRIGHT, read_notes
from data_tools.left_out import Unusable
from data_tools.looks import look_of
from mmtrain.data.sidecar import PREFERRED

EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}  # Pillow's names; MPO: JPEG with extras
JPEG_BEGINNING = b"\xff\xd8\xff"
MAX_PIXELS = 64_000_000  # a small file may unpack to gigabytes; no photo for training is larger
PLAIN_MODES = ("RGB", "L", "P")  # what any reader turns to RGB in the same way
PLAIN_COLORS = ("YCbCr", "Gray", "RGB")  # of JPEGs
SCALES = (8, 4, 2)  # what a JPEG can be divided by while it is decoded, without a loss that would be seen
TURNS = {  # how each turned orientation becomes upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LYING = (5, 6, 7, 8)  # orientations whose width is shown as the height
WHITE = (255, 255, 255)
LOOK_PIXELS = 128  # of either side; decoded smaller, copies of different sizes would look less alike
PIXELS = "RGBX"  # four bytes are resized faster than three
SUBSAMPLING = "420"  # color at half the resolution, as most JPEGs have it
Size = tuple[int, int]  # width, height in pixels


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
    if content.startswith(JPEG_BEGINNING):
        notes = read_notes(content)
        if notes.num_scans > MAX_SCANS:
            raise Unusable("too many scans", f"{notes.num_scans} in a JPEG, at most {MAX_SCANS}")
        size = _plain_size(content)
        if size and notes.orientation == UPRIGHT:
            return _prepare_plain(content, size, rules)
    return _prepare_any(content, rules)


def _prepare_plain(content: bytes, size: Size, rules: ImageRules) -> PreparedImage:
    """An upright JPEG in a common color space: decoded and encoded by libjpeg-turbo."""
    _check_size(size, rules)
    target = _target_size(size, rules.resize)
    keep = target == size and not rules.reencode
    # Where only the check needs the pixels, an eighth of them tells as much: the coded data is read to its end.
    least = (1, 1) if keep else target
    if rules.looks:
        least = (max(least[0], LOOK_PIXELS), max(least[1], LOOK_PIXELS))
    pixels = _decode_plain(content, size, _scale(size, least))
    look = look_of(as_image(pixels)) if rules.looks else None
    if keep:
        return PreparedImage(content, "jpg", size, size, look)
    written = simplejpeg.encode_jpeg(resize(pixels, target), rules.quality, PIXELS, SUBSAMPLING, fastdct=False)
    return PreparedImage(written, "jpg", target, size, look)


def _prepare_any(content: bytes, rules: ImageRules) -> PreparedImage:
    """Any image: decoded and encoded by Pillow."""
    image = open_image(content)
    original_size = image.size
    _check_size(original_size, rules)
    target = _target_size(image.size, rules.resize)
    if image.format == "PNG":
        # Asked for its notes, a PNG reads on to the pixels; what is wrong with those must not pass for bad notes.
        load_image(image)
    if target == image.size and not rules.reencode and not _must_change(image):
        load_image(image)
        extension = EXTENSIONS[image.format or ""]
        return PreparedImage(content, extension, original_size, original_size, look_of(image) if rules.looks else None)
    # A JPEG decodes at 1/2, 1/4 or 1/8 of its size for a fraction of the cost; others ignore this.
    image.draft(None, target)
    load_image(image)
    upright = _upright(image, target)
    written = io.BytesIO()
    upright.save(written, "JPEG", quality=rules.quality)
    look = look_of(upright) if rules.looks else None
    return PreparedImage(written.getvalue(), "jpg", upright.size, original_size, look)


def open_image(content: bytes) -> Image.Image:
    """Read the image's header; Unusable where it is none of JPEG, PNG and WebP, or would unpack to too many pixels."""
    if not content:
        raise Unusable("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP"))
    except Image.UnidentifiedImageError as error:
        raise Unusable("not a JPEG, PNG or WebP image", f"begins with {content[:8]!r}") from error
    except Image.DecompressionBombError as error:
        raise Unusable("too many pixels", f"more than {MAX_PIXELS}") from error
    except Exception as error:  # damaged headers end in whatever the parser stumbles over
        raise Unusable("broken image", f"{type(error).__name__}: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise Unusable("too many pixels", f"{image.width} x {image.height}, at most {MAX_PIXELS} in all")
    return image


def load_image(image: Image.Image) -> None:
    """Decode all pixels; Unusable where the bytes end early or make no sense."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
    except Exception as error:  # damaged pixels end in whatever the decoder stumbles over
        raise Unusable("broken image", f"{type(error).__name__}: {error}") from error


def image_extension(parts: Iterable[str]) -> str | None:
    """The extension under which a sample keeps its image."""
    return next((extension for extension in PREFERRED["image"] if extension in set(parts)), None)


def upright_size(content: bytes) -> Size | None:
    """Width and height as the image is shown, read off its header; None where it has none that can be read."""
    if content.startswith(JPEG_BEGINNING) and (size := _plain_size(content)):
        orientation = read_notes(content).orientation
    else:
        try:
            image = open_image(content)
        except Unusable:
            return None
        size, orientation = image.size, _orientation(image)
    return size[::-1] if orientation in LYING else size


def check_image(content: bytes) -> Size:
    """Width and height of an image that can be decoded to its end; Unusable where it cannot."""
    return prepare_image(content, ImageRules()).original_size


def _plain_size(content: bytes) -> Size | None:
    """Width and height in pixels; None where Pillow is to be asked."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    return (width, height) if colors in PLAIN_COLORS else None


def _decode_plain(content: bytes, size: Size, scale: int) -> np.ndarray:
    """The pixels at 1/`scale`, uint8 [height, width, 4]; where libjpeg complains at all, pixels were made up."""
    least = {"min_width": -(-size[0] // scale), "min_height": -(-size[1] // scale)} if scale > 1 else {}
    try:
        return simplejpeg.decode_jpeg(content, PIXELS, fastdct=False, fastupsample=False, min_factor=scale, **least)
    except (ValueError, MemoryError) as error:
        raise Unusable("broken image", str(error)) from error


def _scale(size: Size, target: Size) -> int:
    """The largest scale at which no side falls below `target`."""
    fits = (scale for scale in SCALES if size[0] >= target[0] * scale and size[1] >= target[1] * scale)
    return next(fits, 1)


def _check_size(size: Size, rules: ImageRules) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise Unusable("too many pixels", f"{width} x {height}, at most {MAX_PIXELS} in all")
    if min(size) < rules.min_side:
        raise Unusable("too small", f"{width} x {height} pixels, --min-side is {rules.min_side}")
    if rules.max_aspect is not None and max(size) > rules.max_aspect * min(size):
        raise Unusable("too long", f"{width} x {height} pixels, --max-aspect is {rules.max_aspect:g}")


def _target_size(size: tuple[int, int], resize: int | None) -> tuple[int, int]:
    shorter = min(size)
    if resize is None or shorter <= resize:
        return size
    width, height = (round(side * resize / shorter) for side in size)
    return width, height


def _must_change(image: Image.Image) -> bool:
    """Whether readers could disagree about what this image looks like."""
    animated = image.format != "MPO" and getattr(image, "is_animated", False)
    return image.mode not in PLAIN_MODES or image.has_transparency_data or animated or _orientation(image) in TURNS


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # notes that cannot be read turn nothing
        return 1


def _upright(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image in RGB, on white, `size` pixels (width, height) before it is turned upright."""
    orientation = _orientation(image)
    flat = _on_white(_in_8_bits(image))
    small = flat.resize(size, Image.Resampling.BICUBIC) if flat.size != size else flat
    turn = TURNS.get(orientation)
    return small.transpose(turn) if turn is not None else small


def _in_8_bits(image: Image.Image) -> Image.Image:
    """16 bits a pixel scaled to 8: convert() would cut them off instead."""
    if not image.mode.startswith("I"):
        return image
    return image.convert("I").point(lambda level: level * (1 / 256)).convert("L")


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    ground = Image.new("RGB", image.size, WHITE)
    ground.paste(layer, mask=layer.getchannel("A"))
    return ground
