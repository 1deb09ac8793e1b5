"""Images on their way into a shard: looked at to the last byte, turned upright, made smaller, or left as they are."""

import io
import warnings
from dataclasses import dataclass

from PIL import Image

from data_tools.left_out import Unusable

EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}  # Pillow's names; MPO: JPEG with extras
MAX_PIXELS = 64_000_000  # a small file may unpack to gigabytes; no photo for training is larger
MAX_FILE_BYTES = 256 << 20
ORIENTATION_TAG = 0x0112  # EXIF; 1 is upright
PLAIN_MODES = ("RGB", "L", "P")  # what any reader turns to RGB in the same way
TURNS = {  # how each turned orientation becomes upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class ImageRules:
    """What is done to images."""

    resize: int | None = None  # pixels of the shorter side; smaller images stay as they are
    min_side: int = 1  # pixels of the shorter side; smaller images are left out
    quality: int = 95  # of a JPEG that must be written anew


@dataclass(frozen=True)
class PreparedImage:
    """An image as it enters a shard."""

    content: bytes
    extension: str
    size: tuple[int, int]  # width, height in pixels
    original_size: tuple[int, int]


def prepare_image(content: bytes, rules: ImageRules) -> PreparedImage:
    """Check that the image can be decoded to its end, and bring it into the shape that `rules` ask for.

    The bytes stay as they are where they may; otherwise the image is written anew as a JPEG: upright, first frame,
    on white where it is transparent. Unusable where it cannot be read or is too small or too large.
    """
    image = open_image(content)
    original_size = image.size
    if min(image.size) < rules.min_side:
        raise Unusable("too small", f"{image.width} x {image.height} pixels, --min-side is {rules.min_side}")
    target = _target_size(image.size, rules.resize)
    if target == image.size and not _must_change(image):
        load_image(image)
        return PreparedImage(content, EXTENSIONS[image.format or ""], image.size, original_size)
    # A JPEG decodes at 1/2, 1/4 or 1/8 of its size for a fraction of the cost; others ignore this.
    image.draft(None, target)
    load_image(image)
    upright = _upright(image, target)
    written = io.BytesIO()
    upright.save(written, "JPEG", quality=rules.quality)
    return PreparedImage(written.getvalue(), "jpg", upright.size, original_size)


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
