"""`mmdata inspect`: what shards hold, as a table and as a sheet of pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from data_tools.images import image_extension
from data_tools.parallel import run_in_order
from data_tools.progress import Progress
from data_tools.survey import Survey, spread, survey_shard
from mmtrain.data.index import DataError, open_index, read_part
from mmtrain.io.console import PlainTable
from mmtrain.io.contact_sheet import FORMATS, INK, Tile, draw_sheet, save_picture
from mmtrain.io.image_codec import ImageError, decode

MADE_BY = "mmdata inspect"  # a note in every sheet, by which --overwrite knows it
TILE_PIXELS = 200  # each side of an image on the sheet
MAX_FAULTS = 10  # in the table
REFUSED_LEVEL = 211  # light grey, in place of an image that cannot be decoded


@dataclass(frozen=True)
class CaptionedImage:
    """An image of a shard with its caption, or in its place why it cannot be decoded."""

    pixels_HWC: np.ndarray  # uint8
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
        ("faults", str(len(survey.faults))),
        *(("", fault) for fault in survey.faults[:MAX_FAULTS]),
    ]


def survey_table(survey: Survey, num_shards: int) -> PlainTable:
    """The figures for a terminal."""
    table = PlainTable("what", "figure", overflow="fold")
    for what, figure in figures(survey, num_shards):
        table.add_row(what, figure)
    return table


def write_sheet(shards: Sequence[Path], out: Path, count: int) -> int:
    """Draw the first `count` images with their captions into a PNG or JPEG; returns how many there were."""
    check_sheet_name(out)
    tiles = [Tile(one.pixels_HWC, [(one.caption, INK)]) for one in islice(captioned_images(shards), count)]
    if not tiles:
        raise DataError("the shards hold no image")
    columns = max(1, round(len(tiles) ** 0.5 * 1.3))
    save_picture(draw_sheet(tiles, columns=columns, side_pixels=TILE_PIXELS), out, made_by=MADE_BY)
    return len(tiles)


def check_sheet_name(out: Path) -> None:
    """DataError where a sheet cannot be of the kind that its name says."""
    if out.suffix.lower() not in FORMATS:
        raise DataError(f"--sheet is {str(out)!r}; wanted a name that ends in .png or .jpg")


def is_sheet(path: Path) -> bool:
    """Whether a file is a sheet that `write_sheet` has written, and no other picture."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            return MADE_BY in (image.info.get("Software"), image.info.get("comment", b"").decode("utf-8", "replace"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _spread_phrase(figures: dict[str, float] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in figures.items()) if figures else "no captions"


def captioned_images(shards: Sequence[Path]) -> Iterator[CaptionedImage]:
    """Images with their captions, in the order of the shards; one that cannot be decoded is grey, with the reason."""
    for shard in shards:
        index = open_index(shard)
        for parts in index.parts:
            extension = image_extension(parts)
            if extension is None:
                continue
            caption = read_part(shard, parts["txt"]).decode("utf-8", "replace") if "txt" in parts else "(no caption)"
            try:
                pixels_HWC = decode(read_part(shard, parts[extension]))
            except ImageError as error:
                pixels_HWC = np.full((TILE_PIXELS, TILE_PIXELS, 3), REFUSED_LEVEL, np.uint8)
                caption = str(error)
            yield CaptionedImage(pixels_HWC, caption)
