"""Image files to uint8 pixels."""

import io
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import simplejpeg
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000  # a file that promises more is an attack or a mistake
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
ORIENTATION_TAG = 0x0112
BASELINE = (0xC0, 0xC1)  # start of frame of the JPEGs whose data is decoded in one pass
SCAN, EXIF = 0xDA, 0xE1
STRAY_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # in a scan: neither a stuffed byte nor a restart
Content = bytes | memoryview


class ImageError(Exception):
    """These bytes are not an image that can be used; the message says why."""


def decode(content: Content) -> torch.Tensor:
    """RGB pixels of an image file, upright as its EXIF says, uint8 [3, H, W] in memory order H, W, 3; ImageError."""
    try:
        pixels = _decode_jpeg(content) if content[:2] == JPEG_START else None
        pixels = _decode_any(content) if pixels is None else pixels
    except UnidentifiedImageError as error:  # whose own words hold a memory address
        raise ImageError("the image cannot be decoded: it is of no known kind") from error
    # On damaged files the decoders raise nearly anything: struct.error, EOFError, KeyError.
    except Exception as error:
        raise ImageError(f"the image cannot be decoded: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def check(content: Content) -> None:
    """ImageError for the files for which `decode` raises it, at a fraction of its price for ordinary JPEGs.

    Of a baseline JPEG of one scan whose tables are sound and whose data holds no stray marker, damaged data
    decodes to damaged pixels but to no error, so there is no need to decode it. All else is decoded.
    """
    if content[:2] != JPEG_START or not _has_sound_frame(content):
        decode(content)


def _has_sound_frame(content: Content) -> bool:
    segments = list(_segments(content))
    frames = [start for marker, start, _ in segments if marker in BASELINE]
    if len(frames) != 1 or segments[-1][0] != SCAN or not _readable_header(content):
        return False
    data_start = segments[-1][2]
    header = bytearray(content[:data_start])
    header[frames[0] + 1 : frames[0] + 5] = bytes((0, 8, 0, 8))
    return _ends_without_stray_marker(bytes(content[data_start:])) and _has_sound_tables(bytes(header))


def _ends_without_stray_marker(data: bytes) -> bool:
    if data.endswith(JPEG_END) and data.count(b"\xff") == data.count(b"\xff\x00") + 1:  # ten times the search's speed
        return True
    stray = STRAY_MARKER.search(data)
    return stray is not None and stray.group() == JPEG_END


# Encoders use few tables, so most headers have been seen before.
@lru_cache(maxsize=4096)
def _has_sound_tables(header: bytes) -> bool:
    """Whether Pillow takes a header of an image of one block: what is wrong with a table shows at once."""
    try:
        with Image.open(io.BytesIO(header + JPEG_END)) as image:
            image.load()
    except Exception:  # as in `decode`, the decoders raise nearly anything
        return False
    return True


def _readable_header(content: Content) -> bool:
    """Whether simplejpeg will decode the file in its one pass."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return False
    return height * width <= MAX_PIXELS and colors not in ("CMYK", "YCCK")


def _decode_jpeg(content: Content) -> np.ndarray | None:
    """Pixels of a JPEG file, None for the rare kinds and small defects that only Pillow copes with."""
    if not _readable_header(content):
        return None
    try:
        pixels = simplejpeg.decode_jpeg(content, "RGB")
    except ValueError:
        return None
    return _upright(pixels, _orientation(content))


def _decode_any(content: Content) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
        return np.array(upright.convert("RGB"))


def _segments(content: Content) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment of a JPEG, up to the first scan; fewer where the chain breaks."""
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker, length = content[position + 1], content[position + 2] << 8 | content[position + 3]
        yield marker, position + 4, position + 2 + length
        if marker == SCAN or length < 2:
            return
        position += 2 + length


def _orientation(content: Content) -> int:
    """The EXIF orientation of a JPEG, 1 to 8; 1, upright, where it says nothing that can be read."""
    # Cameras write EXIF first or right behind the JFIF segment, so the tables are not walked for it.
    for marker, start, end in _segments(content[: 2**16 + 64]):
        if marker == EXIF and content[start : start + 4] == b"Exif":
            exif = Image.Exif()
            with warnings.catch_warnings(action="ignore"):  # damaged EXIF of an image that is whole
                try:
                    exif.load(bytes(content[start:end]))
                    return int(exif.get(ORIENTATION_TAG, 1))
                except Exception:  # Pillow raises what the bytes lead it to
                    return 1
        if not 0xE0 <= marker <= 0xEF:
            break
    return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in (5, 6, 7, 8):  # lies on its side
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
