"""Contact sheets: each held-out image with its caption or question, and what was retrieved for it or said about it.

Axes: C channels, H and W pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmtrain.io.atomic import atomic_open
from mmtrain.monitor.log import RunLog
from mmtrain.records import Shown

PAPER, INK, FAINT = (250, 250, 248), (25, 25, 25), (120, 120, 120)
RIGHT, WRONG = (20, 135, 60), (190, 35, 35)
FONT_PIXELS = 15
LINE_PIXELS = 20
MARGIN_PIXELS = 12
FRAME_PIXELS = 4
TOO_LONG_LINES = 6  # a caption beyond that ends in an ellipsis


class Tile(NamedTuple):
    """One held-out image, what is true of it, what was found for it, and whether that is right."""

    image_CHW: np.ndarray  # uint8
    truth: str
    found: str
    is_right: bool | None  # None where nobody can tell
    headings: tuple[str, str] = ("caption", "retrieved")


class ContactSheet:
    """Held-out images with the captions they retrieve, drawn anew after each evaluation to RUN_DIR/retrieved.png.

    What is said about them goes to RUN_DIR/answered.png.
    """

    def __init__(self, log: RunLog, images_CHW: Sequence[np.ndarray], captions: Sequence[str | None]) -> None:
        self.path = log.run_dir / "retrieved.png"
        self._log, self._images, self._captions = log, images_CHW, captions

    def draw(self, step: int, retrieved: Sequence[int]) -> None:
        """`retrieved[i]` is the held-out caption nearest to image i; on a rank that does not write, nothing happens."""
        if not self._log.writes:
            return
        shown = [
            Tile(image, self._captions[own] or "", self._captions[best] or "", own == best)
            for own, (image, best) in enumerate(zip(self._images, retrieved, strict=True))
        ]
        self._keep(step, "retrieved", shown)

    def draw_answers(self, step: int, shown: Sequence[Shown]) -> None:
        """What was said about those of the images that are among `shown`."""
        tiles = [
            Tile(self._images[one.sample], one.truth, one.said, one.is_right, headings=("truth", "said"))
            for one in shown
            if one.sample < len(self._images)
        ]
        if tiles and self._log.writes:
            self._keep(step, "answered", tiles)

    def _keep(self, step: int, name: str, tiles: Sequence[Tile]) -> None:
        picture_HWC = draw_sheet(tiles)
        save_picture(picture_HWC, self._log.run_dir / f"{name}.png")
        self._log.show(step, name, picture_HWC)


def draw_sheet(shown: Sequence[Tile], *, columns: int = 4, side_pixels: int = 240) -> np.ndarray:
    """A uint8 HWC picture of all of `shown` (at least one), right ones framed in green, wrong ones in red."""
    assert shown, "a contact sheet needs at least one image; draw none when eval.num_pictures is 0"
    font = ImageFont.load_default(FONT_PIXELS)
    columns = min(columns, len(shown))
    texts = [_lines(one, font, side_pixels) for one in shown]
    text_height = max(len(lines) for lines in texts) * LINE_PIXELS
    cell_width, cell_height = side_pixels + 2 * MARGIN_PIXELS, side_pixels + text_height + 3 * MARGIN_PIXELS
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (columns * cell_width, rows * cell_height), PAPER)
    for number, (one, lines) in enumerate(zip(shown, texts, strict=True)):
        row, column = divmod(number, columns)
        _draw_cell(sheet, (column * cell_width, row * cell_height), one, lines, font, side_pixels)
    return np.asarray(sheet)


def save_picture(picture_HWC: np.ndarray, path: Path) -> None:
    """Write a uint8 picture as PNG; the file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(path, durable=False) as file:
        Image.fromarray(picture_HWC).save(file, format="PNG")


def _draw_cell(
    sheet: Image.Image,
    corner: tuple[int, int],
    one: Tile,
    lines: Sequence[tuple[str, tuple[int, int, int]]],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    side_pixels: int,
) -> None:
    left, top = corner[0] + MARGIN_PIXELS, corner[1] + MARGIN_PIXELS
    draw = ImageDraw.Draw(sheet)
    frame = (left - FRAME_PIXELS, top - FRAME_PIXELS, left + side_pixels + 3, top + side_pixels + 3)
    draw.rectangle(frame, fill=_ink(one))
    sheet.paste(_fitted(one.image_CHW, side_pixels), (left, top))
    for number, (line, ink) in enumerate(lines):
        draw.text((left, top + side_pixels + MARGIN_PIXELS + number * LINE_PIXELS), line, fill=ink, font=font)


def _fitted(image_CHW: np.ndarray, side_pixels: int) -> Image.Image:
    """The image scaled to the longer side, on a square of paper."""
    image = Image.fromarray(np.ascontiguousarray(image_CHW.transpose(1, 2, 0)))
    scale = side_pixels / max(image.size)
    # Small images are enlarged without blur, so that one sees the pixels that the model saw.
    method = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    image = image.resize((round(image.width * scale), round(image.height * scale)), method)
    square = Image.new("RGB", (side_pixels, side_pixels), PAPER)
    square.paste(image, ((side_pixels - image.width) // 2, (side_pixels - image.height) // 2))
    return square


def _lines(
    one: Tile, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_pixels: int
) -> list[tuple[str, tuple[int, int, int]]]:
    """The words below one image with their ink: what is true, then what was found, behind a mark."""
    mark = {True: "right: ", False: "wrong: ", None: ""}[one.is_right]
    own = [(line, INK) for line in _wrapped(one.truth, font, width_pixels)]
    got = [(line, _ink(one)) for line in _wrapped(f"{mark}{one.found}", font, width_pixels)]
    return [(one.headings[0], FAINT), *own, (one.headings[1], FAINT), *got]


def _ink(one: Tile) -> tuple[int, int, int]:
    return {True: RIGHT, False: WRONG, None: INK}[one.is_right]


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_pixels: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width_pixels or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines if len(lines) <= TOO_LONG_LINES else [*lines[: TOO_LONG_LINES - 1], lines[TOO_LONG_LINES - 1] + " ..."]
