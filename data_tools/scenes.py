"""Synthetic scenes: a few things with shape, color, size and place, and what makes two scenes mean the same."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from random import Random
from typing import Literal

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = ("small", "large")
# Chosen far apart from each other and from the backgrounds, so that every color can be told at a few pixels.
COLORS = {
    "red": (215, 35, 35),
    "yellow": (245, 215, 30),
    "green": (45, 155, 60),
    "cyan": (0, 190, 210),
    "blue": (40, 70, 215),
    "purple": (125, 40, 155),
    "pink": (245, 130, 195),
    "black": (35, 35, 35),
}

Trait = Literal["color", "shape", "size"]
Kind = Literal["color", "shape", "size", "place"]
Cell = tuple[int, int]  # row from the top, column from the left


@dataclass(frozen=True, order=True)
class Thing:
    """One object of a scene."""

    shape: str
    color: str
    size: str
    cell: Cell

    @property
    def traits(self) -> tuple[str, str, str]:
        """Everything but the place."""
        return self.shape, self.color, self.size


@dataclass(frozen=True)
class Scene:
    """Things in different cells of a square grid; no two share all traits."""

    grid: int  # cells along each side
    things: tuple[Thing, ...]

    def record(self) -> list[dict[str, object]]:
        """The scene as plain values for KEY.json."""
        return [asdict(thing) for thing in self.things]


@dataclass(frozen=True)
class SceneRules:
    """What scenes may be drawn."""

    num_objects: tuple[int, ...] = (2,)  # each scene has one of these
    grid: int = 2


def draw_scene(rng: Random, rules: SceneRules) -> Scene:
    """A scene by the rules, each choice with equal chance."""
    count = rng.choice(rules.num_objects)
    cells = [(row, column) for row in range(rules.grid) for column in range(rules.grid)]
    things: list[Thing] = []
    for cell in rng.sample(cells, count):
        thing = Thing(rng.choice(SHAPES), rng.choice(tuple(COLORS)), rng.choice(SIZES), cell)
        while thing.traits in [other.traits for other in things]:
            thing = replace(thing, shape=rng.choice(SHAPES), color=rng.choice(tuple(COLORS)))
        things.append(thing)
    return Scene(rules.grid, tuple(things))


def offset(first: Thing, second: Thing) -> tuple[int, int]:
    """Where `first` stands seen from `second`: (-1 above, 1 below or 0; -1 left, 1 right or 0)."""
    return tuple((a > b) - (a < b) for a, b in zip(first.cell, second.cell, strict=True))  # type: ignore[return-value]


def meaning(scene: Scene) -> tuple[object, ...]:
    """What a caption tells of the scene: a caption of one scene may be true of another only if they mean the same.

    Two things may be told by their relation alone, so their cells do not count beyond it; more are told by place.
    """
    things = sorted(scene.things)
    if len(things) == 2:
        first, second = sorted(things, key=lambda thing: thing.traits)
        return first.traits, second.traits, offset(first, second)
    return tuple(sorted((*thing.traits, thing.cell) for thing in things))


def count_meanings(rules: SceneRules) -> int:
    """How many scenes there are that mean different things."""
    num_traits, num_cells = len(SHAPES) * len(COLORS) * len(SIZES), rules.grid**2
    num_offsets = 8  # of one thing from another: all but the same cell
    return sum(
        math.comb(num_traits, count) * (num_offsets if count == 2 else math.perm(num_cells, count))
        for count in rules.num_objects
    )


def swaps(scene: Scene) -> Iterator[tuple[Kind, Scene]]:
    """Every scene that differs only in which thing has which color, shape, size or place, and means something else."""
    kinds: tuple[Kind, ...] = ("color", "shape", "size", "place")
    for kind in kinds:
        name = "cell" if kind == "place" else kind
        for i, j in combinations(range(len(scene.things)), 2):
            things = list(scene.things)
            things[i] = replace(scene.things[i], **{name: getattr(scene.things[j], name)})
            things[j] = replace(scene.things[j], **{name: getattr(scene.things[i], name)})
            twin = Scene(scene.grid, tuple(things))
            if meaning(twin) != meaning(scene) and len({thing.traits for thing in things}) == len(things):
                yield kind, twin
