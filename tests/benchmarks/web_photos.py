"""JPEGs like those that a crawl of the web brings: textures of many scales, edges, several qualities and layouts."""

import io
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

OCTAVE_PIXELS = (256, 128, 64, 32, 16, 8, 4, 2)  # cells of the noise, coarse to fine
NUM_EDGES = 12  # polygons with sharp borders
PROGRESSIVE_SHARE = 0.24
FULL_COLOR_SHARE = 0.15  # 4:4:4; the rest has its color at half the resolution
SHORT_SIDE_PIXELS = (480, 900)
ROUGHNESS = 0.61  # what is left of the strength from one octave to the next finer one
NUM_CANVASES, CANVAS_PIXELS = 16, 1600


def draw_photo(seed: int, size: tuple[int, int], roughness: float = ROUGHNESS) -> Image.Image:
    """A picture of `size` (width, height) in pixels; the same arguments give the same pixels."""
    rng, width, height = np.random.default_rng(seed), *size
    light = np.zeros((height, width), np.float32)
    tint = np.zeros((height, width, 3), np.float32)
    for octave, cell in enumerate(OCTAVE_PIXELS):
        strength = 130.0 * roughness**octave * rng.uniform(0.6, 1.4)
        light += strength * _noise(rng, size, cell)
        if octave < 4:  # color of photos changes slowly
            for channel in range(3):
                tint[:, :, channel] += 0.5 * strength * _noise(rng, size, cell)
    pixels = np.clip(rng.uniform(80, 170, 3) + light[:, :, None] + tint, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    _draw_edges(image, Random(seed))
    return image


def cut_photo(seed: int) -> Image.Image:
    """A picture of web size, cut out of one of a few large ones, which is faster than drawing it."""
    rng = Random(seed)
    size, canvas = _web_size(rng), _canvas(rng.randrange(NUM_CANVASES))
    left, top = rng.randrange(canvas.width - size[0]), rng.randrange(canvas.height - size[1])
    cut = canvas.crop((left, top, left + size[0], top + size[1]))
    return cut.transpose(rng.choice((Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)))


def encode_photo(image: Image.Image, seed: int) -> bytes:
    """The picture as a JPEG whose quality and layout follow from `seed`."""
    rng, written = Random(seed), io.BytesIO()
    subsampling = 0 if rng.random() < FULL_COLOR_SHARE else 2
    progressive = rng.random() < PROGRESSIVE_SHARE
    image.save(written, "JPEG", quality=rng.randint(80, 92), subsampling=subsampling, progressive=progressive)
    return written.getvalue()


def write_photos(folder: Path, count: int, *, first_seed: int = 0) -> list[Path]:
    """Write `count` JPEGs of web size, about 0.6 megapixel on average, into `folder`; those there already stay."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            seed = first_seed + number
            path.write_bytes(encode_photo(cut_photo(seed), seed))
    return paths


@lru_cache(maxsize=NUM_CANVASES)
def _canvas(number: int) -> Image.Image:
    return draw_photo(number, (CANVAS_PIXELS, CANVAS_PIXELS))


def _web_size(rng: Random) -> tuple[int, int]:
    short = rng.choices((rng.randint(SHORT_SIDE_PIXELS[0], 760), rng.randint(760, SHORT_SIDE_PIXELS[1])), (2, 1))[0]
    long = round(short * rng.choice((1.0, 1.25, 4 / 3, 1.5)))
    return (long, short) if rng.random() < 0.7 else (short, long)


def _noise(rng: np.random.Generator, size: tuple[int, int], cell: int) -> np.ndarray:
    """Smooth noise between -1 and 1 whose features are `cell` pixels wide, float32 [height, width]."""
    width, height = size
    coarse = rng.uniform(-1, 1, (height // cell + 2, width // cell + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR))


def _draw_edges(image: Image.Image, rng: Random) -> None:
    brush = ImageDraw.Draw(image)
    for _ in range(NUM_EDGES):
        corner = (rng.randrange(image.width), rng.randrange(image.height))
        reach = rng.randint(20, min(image.size) // 3)
        corners = [(corner[0] + rng.randint(-reach, reach), corner[1] + rng.randint(-reach, reach)) for _ in range(4)]
        color = tuple(rng.randrange(256) for _ in range(3))
        if rng.random() < 0.5:
            brush.polygon(corners, outline=color, width=rng.randint(1, 6))
        else:
            patch = image.crop((0, 0, 64, 64)).filter(ImageFilter.GaussianBlur(2))
            image.paste(patch.resize((reach, reach)), corner)
            brush.line(corners, fill=color, width=rng.randint(1, 5))
