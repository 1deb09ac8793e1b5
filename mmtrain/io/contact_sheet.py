"""Contact sheets: images in rows, each in a frame with lines of text below it. No torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from mmtrain.io.atomic import atomic_open

PAPER, INK, FAINT = (250, 250, 248), (25, 25, 25), (120, 120, 120)
FONT_PIXELS = 15
LINE_PIXELS = 20
MARGIN_PIXELS = 12
FRAME_PIXELS = 4
MAX_LINES = 6  # of a text; what is longer ends in an ellipsis
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}  # by the suffix of the file
Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Tile(NamedTuple):
    """One image of a sheet."""

    image_HWC: np.ndarray  # uint8
    texts: Sequence[tuple[str, Color]]  # below the image, each on lines of its own
    frame: Color = INK


def draw_sheet(tiles: Sequence[Tile], *, columns: int = 4, side_pixels: int = 240) -> np.ndarray:
    """A picture of all of `tiles` (at least one), uint8 [H, W, 3]; rows are filled first."""
    if not tiles:
        raise ValueError("a contact sheet needs at least one image")
    font = ImageFont.load_default(FONT_PIXELS)
    columns = min(columns, len(tiles))
    texts = [_lines(tile, font, side_pixels) for tile in tiles]
    text_height = max(len(lines) for lines in texts) * LINE_PIXELS
    cell_width, cell_height = side_pixels + 2 * MARGIN_PIXELS, side_pixels + text_height + 3 * MARGIN_PIXELS
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * cell_width, rows * cell_height), PAPER)
    for number, (tile, lines) in enumerate(zip(tiles, texts, strict=True)):
        row, column = divmod(number, columns)
        _draw_cell(sheet, (column * cell_width, row * cell_height), tile, lines, font, side_pixels)
    return np.asarray(sheet)


def save_picture(picture_HWC: np.ndarray, path: Path, *, made_by: str = "") -> None:
    """Write a uint8 picture as PNG or JPEG, by its suffix; the file is there whole or not at all.

    `made_by` stands in it as a note (PNG "Software", JPEG comment).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {}
    if made_by:
        notes = PngImagePlugin.PngInfo()
        notes.add_text("Software", made_by)
        options = {"pnginfo": notes, "comment": made_by.encode()}
    with atomic_open(path, durable=False) as file:
        Image.fromarray(picture_HWC).save(file, format=FORMATS[path.suffix.lower()], **options)


def _draw_cell(
    sheet: Image.Image,
    corner: tuple[int, int],
    tile: Tile,
    lines: Sequence[tuple[str, Color]],
    font: Font,
    side_pixels: int,
) -> None:
    left, top = corner[0] + MARGIN_PIXELS, corner[1] + MARGIN_PIXELS
    draw = ImageDraw.Draw(sheet)
    frame = (left - FRAME_PIXELS, top - FRAME_PIXELS, left + side_pixels + 3, top + side_pixels + 3)
    draw.rectangle(frame, fill=tile.frame)
    sheet.paste(_fitted(tile.image_HWC, side_pixels), (left, top))
    for number, (line, ink) in enumerate(lines):
        draw.text((left, top + side_pixels + MARGIN_PIXELS + number * LINE_PIXELS), line, fill=ink, font=font)


def _fitted(image_HWC: np.ndarray, side_pixels: int) -> Image.Image:
    """The image scaled to the longer side, on a square of paper."""
    image = Image.fromarray(np.ascontiguousarray(image_HWC))
    scale = side_pixels / max(image.size)
    # Small images are enlarged without blur, so that their pixels can be judged.
    method = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), method)
    square = Image.new("RGB", (side_pixels, side_pixels), PAPER)
    square.paste(image, ((side_pixels - image.width) // 2, (side_pixels - image.height) // 2))
    return square


def _lines(tile: Tile, font: Font, width_pixels: int) -> list[tuple[str, Color]]:
    return [(line, ink) for text, ink in tile.texts for line in _wrapped(text, font, width_pixels)]


def _wrapped(text: str, font: Font, width_pixels: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width_pixels or not lines[-1]:
            lines[-1] = longer
        elif len(lines) == MAX_LINES:
            return [*lines[:-1], f"{lines[-1]} ..."]
        else:
            lines.append(word)
    return lines
