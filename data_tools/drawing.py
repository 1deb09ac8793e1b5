"""Draws a scene: anti-aliased by drawing large and averaging down, never twice the same."""

import io
import math
from random import Random

from PIL import Image, ImageDraw

from data_tools.scenes import COLORS, Scene, Thing

OVERSAMPLING = 4  # drawn this many times larger along each side
JPEG_QUALITY = 90
BACKGROUNDS = ((246, 246, 246), (250, 243, 230), (228, 234, 246), (230, 243, 230), (222, 222, 226))
# Half of a thing's width as a share of its cell, from and to; with the room for jitter it stays inside the cell.
HALF_WIDTHS = {"small": (0.20, 0.24), "large": (0.37, 0.41)}
JITTER = {"small": 0.12, "large": 0.05}  # of the center, as a share of the cell
MAX_TURN_RADIANS = 0.15
MAX_SHADE = 10  # levels by which a color is darkened or lightened
STAR_WAIST = 0.45  # radius of a star's inner corners over that of its points
BAR_HALF_WIDTH = 0.34  # of a cross, over its half width
RING_HOLE = 0.55  # radius of the hole over that of the ring

Point = tuple[float, float]


def render(scene: Scene, image_size: int, rng: Random) -> bytes:
    """The scene as a square JPEG, `image_size` pixels a side; size, place, shade and turn vary slightly with `rng`."""
    side = image_size * OVERSAMPLING
    picture = Image.new("RGB", (side, side), _shaded(rng.choice(BACKGROUNDS), rng, up_to=4))
    draw = ImageDraw.Draw(picture)
    for thing in scene.things:
        _draw(draw, thing, side / scene.grid, rng)
    # Full color resolution: at a few pixels the usual halving would blur a thing's color into its surroundings.
    written = io.BytesIO()
    picture.reduce(OVERSAMPLING).save(written, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return written.getvalue()


def _draw(draw: ImageDraw.ImageDraw, thing: Thing, cell: float, rng: Random) -> None:
    radius = rng.uniform(*HALF_WIDTHS[thing.size]) * cell
    reach = JITTER[thing.size]
    row, column = thing.cell
    center = ((column + 0.5 + rng.uniform(-reach, reach)) * cell, (row + 0.5 + rng.uniform(-reach, reach)) * cell)
    turn = rng.uniform(-MAX_TURN_RADIANS, MAX_TURN_RADIANS)
    color = _shaded(COLORS[thing.color], rng, up_to=MAX_SHADE)
    if thing.shape in ("circle", "ring"):
        box = (center[0] - radius, center[1] - radius, center[0] + radius, center[1] + radius)
        if thing.shape == "circle":
            draw.ellipse(box, fill=color)
        else:
            draw.ellipse(box, outline=color, width=round(radius * (1 - RING_HOLE)))
        return
    draw.polygon([_turned(point, center, radius, turn) for point in OUTLINES[thing.shape]], fill=color)


def _shaded(color: tuple[int, int, int], rng: Random, up_to: int) -> tuple[int, ...]:
    shade = rng.randint(-up_to, up_to)
    return tuple(min(255, max(0, level + shade)) for level in color)


def _turned(point: Point, center: Point, radius: float, turn: float) -> Point:
    x, y = point
    cos, sin = math.cos(turn), math.sin(turn)
    return center[0] + radius * (x * cos - y * sin), center[1] + radius * (x * sin + y * cos)


def _corners(count: int, radii: tuple[float, ...], first_angle: float) -> tuple[Point, ...]:
    angles = [first_angle + 2 * math.pi * i / count for i in range(count)]
    return tuple(
        (radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a)) for i, a in enumerate(angles)
    )


def _cross() -> tuple[Point, ...]:
    w = BAR_HALF_WIDTH
    corner = ((w, -1.0), (w, -w), (1.0, -w))
    quarter_turns = [corner]
    for _ in range(3):
        quarter_turns.append(tuple((-y, x) for x, y in quarter_turns[-1]))  # type: ignore[arg-type]
    return tuple(point for quarter in quarter_turns for point in quarter)


UP = -math.pi / 2  # rows grow downwards
# Corners around (0, 0) for a half width of 1, all within a circle of radius 1.08 so that turned ones stay in the cell.
OUTLINES = {
    "square": _corners(4, (1.08,), math.pi / 4),
    "triangle": _corners(3, (1.08,), UP),
    "star": _corners(10, (1.08, 1.08 * STAR_WAIST), UP),
    "cross": _cross(),
}
