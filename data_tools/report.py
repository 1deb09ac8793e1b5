"""`mmdata inspect`: what shards hold, as a table and as a sheet of pictures."""

import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from data_tools.images import image_extension
from data_tools.parallel import run_in_order
from data_tools.progress import Progress
from data_tools.survey import Survey, spread, survey_shard
from mmtrain.data.index import DataError, open_index, read_part
from mmtrain.io.atomic import atomic_write
from mmtrain.io.console import PlainTable
from mmtrain.io.image_codec import ImageError, decode

MADE_BY = "mmdata inspect"  # a note in every sheet, by which --overwrite knows it
SHEET_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
TILE_PIXELS = 160  # each side of an image on the sheet
MARGIN_PIXELS = 8
CAPTION_LINES = 4
FONT_PIXELS = 12
CHARACTERS_PER_LINE = TILE_PIXELS // 6
MAX_FAULTS = 10  # in the table
REFUSED = "lightgrey"  # in place of an image that cannot be decoded


@dataclass(frozen=True)
class Tile:
    """One picture of the sheet."""

    image: Image.Image
    caption: str


def survey_shards(shards: Sequence[Path], processes: int) -> Survey:
    """Survey all shards."""
    whole = Survey()
    with Progress("reading shards", len(shards)) as progress:
        for survey in run_in_order(survey_shard, shards, min(processes, len(shards))):
            whole.add(survey)
            progress.advance()
    return whole


def figures(survey: Survey, num_shards: int) -> list[tuple[str, str]]:
    """The survey for people to read: what, and its figure in words."""
    sizes = [f"{width} x {height} ({count})" for (width, height), count in survey.image_sizes.most_common(3)]
    return [
        ("shards", f"{num_shards}"),
        ("samples", f"{survey.num_samples}"),
        ("bytes", f"{survey.num_bytes} ({survey.num_bytes / 2**20:.1f} MiB)"),
        ("files", ", ".join(f"{count} .{name}" for name, count in sorted(survey.extensions.items()))),
        ("image sizes, pixels", ", ".join(sizes) + (", ..." if len(survey.image_sizes) > 3 else "")),
        ("distinct captions", f"{len(survey.caption_digests)} of {survey.caption_words.total()}"),
        ("words per caption", _spread_phrase(spread(survey.caption_words))),
        ("distinct words", f"{len(survey.words)}"),
        ("faults", "\n".join([str(len(survey.faults)), *survey.faults[:MAX_FAULTS]])),
    ]


def survey_table(survey: Survey, num_shards: int) -> PlainTable:
    """The figures for a terminal."""
    table = PlainTable("what", "figure", overflow="fold")
    for what, figure in figures(survey, num_shards):
        table.add_row(what, figure)
    return table


def write_sheet(shards: Sequence[Path], out: Path, count: int) -> int:
    """Draw the first `count` images with their captions into a PNG or JPEG; returns how many there were."""
    shown = [tile for tile, _ in zip(tiles(shards), range(count), strict=False)]
    if not shown:
        raise DataError("the shards hold no image")
    columns = min(len(shown), max(1, round(len(shown) ** 0.5 * 1.3)))
    width, height = TILE_PIXELS + MARGIN_PIXELS, TILE_PIXELS + MARGIN_PIXELS + CAPTION_LINES * (FONT_PIXELS + 2)
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (columns * width + MARGIN_PIXELS, rows * height + MARGIN_PIXELS), "white")
    for number, tile in enumerate(shown):
        row, column = divmod(number, columns)
        _paste(sheet, tile, MARGIN_PIXELS + column * width, MARGIN_PIXELS + row * height)
    atomic_write(out, _encoded(sheet, out))
    return len(shown)


def check_sheet_name(out: Path) -> None:
    """DataError where a sheet cannot be of the kind that its name says."""
    if out.suffix.lower() not in SHEET_FORMATS:
        raise DataError(f"--sheet is {str(out)!r}; wanted a name that ends in .png or .jpg")


def is_sheet(path: Path) -> bool:
    """Whether a file is a sheet that `write_sheet` has written, and no other picture."""
    try:
        with Image.open(path) as image:
            return MADE_BY in (image.info.get("Software"), image.info.get("comment", b"").decode("utf-8", "replace"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _encoded(sheet: Image.Image, out: Path) -> bytes:
    """The sheet as a PNG or JPEG, as the name says, with a note of who made it."""
    written, notes = io.BytesIO(), PngImagePlugin.PngInfo()
    notes.add_text("Software", MADE_BY)
    check_sheet_name(out)
    sheet.save(written, SHEET_FORMATS[out.suffix.lower()], pnginfo=notes, comment=MADE_BY.encode())
    return written.getvalue()


def _spread_phrase(figures: dict[str, float] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in figures.items()) if figures else "no captions"


def tiles(shards: Sequence[Path]) -> Iterator[Tile]:
    """Images with their captions, in the order of the shards; one that cannot be decoded is grey, with the reason."""
    for shard in shards:
        index = open_index(shard)
        for parts in index.parts:
            extension = image_extension(parts)
            if extension is None:
                continue
            caption = read_part(shard, parts["txt"]).decode("utf-8", "replace") if "txt" in parts else "(no caption)"
            try:
                image = Image.fromarray(decode(read_part(shard, parts[extension])))
            except ImageError as error:
                image, caption = Image.new("RGB", (TILE_PIXELS, TILE_PIXELS), REFUSED), str(error)
            yield Tile(image, caption)


def _paste(sheet: Image.Image, tile: Tile, left: int, top: int) -> None:
    """Enlarged without smoothing where it is small, so that pixels can be judged."""
    scale = TILE_PIXELS / max(tile.image.size)
    size = tuple(max(1, round(side * scale)) for side in tile.image.size)
    sampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    sheet.paste(tile.image.resize(size, sampling), (left, top))
    lines = textwrap.wrap(tile.caption, CHARACTERS_PER_LINE, max_lines=CAPTION_LINES, placeholder=" ...")
    font = ImageFont.load_default(FONT_PIXELS)
    ImageDraw.Draw(sheet).text((left, top + TILE_PIXELS + 2), "\n".join(lines), fill="black", font=font, spacing=2)
