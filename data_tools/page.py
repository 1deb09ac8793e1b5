"""The report of `mmdata inspect`: one HTML file with figures, histograms and pictures, readable without a network."""

import base64
import html
import io
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from PIL import Image

from data_tools.pack import MANIFEST_NAME
from data_tools.report import CaptionedImage, captioned_images, figures
from data_tools.survey import Survey
from mmtrain.data.index import DataError, read_manifest
from mmtrain.io.atomic import atomic_write

# A note in every report, by which --overwrite knows it.
MADE_BY = "<meta name='generator' content='mmdata inspect'>"
NUM_BARS = 30
BAR_PIXELS, CHART_PIXELS = 14, 120  # width of a bar, height of a chart
TILE_PIXELS = 200
STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1080px; padding: 0 1em; color: #222 }
table { border-collapse: collapse } td, th { border-bottom: 1px solid #ddd; padding: .2em 1em .2em 0;
  text-align: left }
.charts, .tiles { display: flex; flex-wrap: wrap; gap: 1.5em } figure { margin: 0 } figcaption { color: #555 }
.tiles figure { width: 200px; overflow-wrap: anywhere } svg rect { fill: #4a7ab5 }
svg text { font-size: 11px; fill: #555 }
"""


def write_page(out: Path, shards: Sequence[Path], survey: Survey, num_pictures: int) -> Path:
    """Write the report, whole or not at all; DataError where `out` does not end in .html."""
    check_page_name(out)
    pictures = islice(captioned_images(shards), num_pictures)
    sections = [
        f"<table>{''.join(_line(what, figure) for what, figure in figures(survey, len(shards)))}</table>",
        _left_out({shard.parent for shard in shards}),
        f'<h2>Histograms</h2><div class="charts">{"".join(_charts(survey))}</div>',
        f'<h2>Pictures</h2><div class="tiles">{"".join(map(_figure, pictures))}</div>',
    ]
    title = f"{len(shards)} shards"
    page = (
        f"<!doctype html><html><head><meta charset='utf-8'>{MADE_BY}<title>{title}</title><style>{STYLE}</style></head>"
    )
    return atomic_write(out, f"{page}<body><h1>{title}</h1>{''.join(sections)}</body></html>\n")


def check_page_name(out: Path) -> None:
    """DataError where `out` is no name of a page."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"--report is {str(out)!r}; wanted a name that ends in .html")


def is_page(path: Path) -> bool:
    """Whether a file is a report that `write_page` has written, and no other page."""
    with open(path, "rb") as file:
        return MADE_BY.encode() in file.read(4096)


def histogram(values: Counter[int]) -> list[tuple[int, int, int]]:
    """At most NUM_BARS bars (from, below, count) of equal width over counted whole numbers, the empty ones too."""
    if not values:
        return []
    least, most = min(values), max(values)
    width = max(1, -(-(most - least + 1) // NUM_BARS))
    bars = Counter[int]()
    for value, count in values.items():
        bars[(value - least) // width] += count
    return [(least + n * width, least + (n + 1) * width, bars[n]) for n in range((most - least) // width + 1)]


def _charts(survey: Survey) -> list[str]:
    sizes = survey.image_sizes
    shorter, percents = Counter[int](), Counter[int]()
    for (width, height), count in sizes.items():
        shorter[min(width, height)] += count
        percents[round(100 * width / max(height, 1))] += count
    return [
        _chart("shorter side, pixels", shorter),
        _chart("width as a percentage of height", percents),
        _chart("image file, KiB", survey.image_kibibytes),
        _chart("words per caption", survey.caption_words),
    ]


def _chart(title: str, values: Counter[int]) -> str:
    bars = histogram(values)
    highest = max((count for _, _, count in bars), default=1)
    width = max(len(bars), 1) * BAR_PIXELS
    drawn = []
    for number, (least, below, count) in enumerate(bars):
        height = CHART_PIXELS * count / highest
        words = f"{least}" if below == least + 1 else f"{least} to {below - 1}"
        place = f'x="{number * BAR_PIXELS}" y="{CHART_PIXELS - height:.1f}" width="{BAR_PIXELS - 2}"'
        drawn.append(f'<rect {place} height="{height:.1f}"><title>{words}: {count}</title></rect>')
    ends = f'<text x="0" y="{CHART_PIXELS + 14}">{bars[0][0]}</text>' if bars else ""
    if len(bars) > 1:
        ends += f'<text x="{width}" y="{CHART_PIXELS + 14}" text-anchor="end">{bars[-1][1] - 1}</text>'
    svg = f'<svg width="{width}" height="{CHART_PIXELS + 20}">{"".join(drawn)}{ends}</svg>'
    return f"<figure>{svg}<figcaption>{html.escape(title)}; highest bar: {highest}</figcaption></figure>"


def _left_out(folders: set[Path]) -> str:
    """What the builds of these folders left out, by reason."""
    reasons = Counter[str]()
    for folder in folders:
        if (folder / MANIFEST_NAME).exists():
            statistics = read_manifest(folder).statistics
            reasons.update(statistics.get("left_out", {}) if isinstance(statistics, dict) else {})
    if not reasons:
        return ""
    lines = "".join(_line(reason, str(count)) for reason, count in reasons.most_common())
    return f"<h2>Left out when built</h2><table>{lines}</table>"


def _line(what: str, figure: str) -> str:
    return f"<tr><th>{html.escape(what)}</th><td>{html.escape(figure)}</td></tr>"


def _figure(shown: CaptionedImage) -> str:
    small, written = Image.fromarray(shown.pixels_HWC), io.BytesIO()
    small.thumbnail((TILE_PIXELS, TILE_PIXELS), Image.Resampling.BICUBIC)
    small.save(written, "JPEG", quality=85)
    source = base64.b64encode(written.getvalue()).decode()
    caption = html.escape(shown.caption[:400])
    return f'<figure><img src="data:image/jpeg;base64,{source}" alt=""><figcaption>{caption}</figcaption></figure>'
