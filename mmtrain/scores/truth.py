"""Whether a caption is true of a synthetic scene of two things: shape, color, size and place, each and all together.

A scene is what `mmdata synth` keeps of it beside its caption: each thing's shape, color, size and cell (row, column).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

ATTRIBUTES = ("shape", "color", "size", "things", "place")  # things: shape, color and size
SIZES = dict.fromkeys(("small", "tiny", "little"), "small") | dict.fromkeys(("large", "big", "huge"), "large")
THING = re.compile(rf"\ba ({'|'.join(SIZES)}) (\w+) (\w+)")
PLACE = re.compile(r"\bat the (top|bottom) (left|right)")
RELATION = re.compile(
    r"\b(?:to the )?(?:(?P<corner>upper|lower) (?P<side>left|right) of"
    r"|(?P<above>above|below) and (?P<beside>left|right) of"
    r"|(?P<only_side>left|right) of|(?P<only_above>above|over|below|under))\b"
)
STEPS = {"upper": -1, "above": -1, "over": -1, "lower": 1, "below": 1, "under": 1, "left": -1, "right": 1, None: 0}
ROWS, COLUMNS = {"top": 0, "bottom": 1}, {"left": 0, "right": 1}
Scene = Sequence[Mapping[str, Any]]
NUM_JUDGED = 2  # things in a scene whose captions can be judged
THING_KEYS = {"shape", "color", "size", "cell"}


@dataclass(frozen=True)
class Said:
    """What a caption claims of two things, in the order in which it names them."""

    things: tuple[dict[str, str], ...]
    places: tuple[tuple[int, tuple[int, int]], ...]  # which thing, and its cell
    relations: tuple[tuple[int, tuple[int, int]], ...]  # which thing, and where it stands seen from the other


def as_scene(said: object) -> Scene | None:
    """A scene of two things in exactly the form that `mmdata synth` writes, else None.

    "scene" is an ordinary word: whatever else people's metadata holds under it is theirs and is not judged.
    """
    if not isinstance(said, list) or len(said) != NUM_JUDGED or not all(_is_thing(thing) for thing in said):
        return None
    return said


def _is_thing(said: object) -> bool:
    if not isinstance(said, dict) or said.keys() != THING_KEYS:
        return False
    cell = said["cell"]
    is_cell = isinstance(cell, list) and len(cell) == 2 and all(type(side) is int and side >= 0 for side in cell)
    words = all(isinstance(said[name], str) and said[name] for name in ("shape", "color"))
    return is_cell and words and said["size"] in ("small", "large")


def read(caption: str) -> Said | None:
    """The claims of a caption; None where it does not name exactly two things."""
    found = list(THING.finditer(caption))
    if len(found) != 2:
        return None
    things = tuple({"size": SIZES[thing[1]], "color": thing[2], "shape": thing[3]} for thing in found)
    second = found[1].start()
    places_first = caption.lstrip().startswith("at the")
    places = []
    for place in PLACE.finditer(caption):
        names_first = place.start() < (found[0].start() if places_first else second)
        places.append((0 if names_first else 1, (ROWS[place[1]], COLUMNS[place[2]])))
    relations = [(0 if word.start() < second else 1, _step(word)) for word in RELATION.finditer(caption)]
    return Said(things, tuple(places), tuple(relations))


def right(caption: str, scene: Scene) -> dict[str, bool]:
    """Which attributes the caption has right of both things, and under `all` whether it has every one.

    Words may name the things in any order: they are taken as it suits the caption best. Place is right where something
    is said of it and nothing said is false. ValueError for a scene of another number of things.
    """
    if len(scene) != NUM_JUDGED:
        raise ValueError(f"a scene has {len(scene)} things; wanted {NUM_JUDGED}")
    said = read(caption)
    if said is None:
        return dict.fromkeys((*ATTRIBUTES, "all"), False)
    found = [_judged(said, order) for order in permutations(scene)]
    return max(found, key=lambda judged: (judged["all"], sum(judged.values())))


def shares_right(captions: Sequence[str], scenes: Sequence[Scene]) -> dict[str, float]:
    """The share of captions with each attribute right, and with every one; ValueError without a caption."""
    if not captions:
        raise ValueError("no captions are given; a score needs at least one")
    judged = [right(caption, scene) for caption, scene in zip(captions, scenes, strict=True)]
    return {f"caption_{name}_right": sum(one[name] for one in judged) / len(judged) for name in (*ATTRIBUTES, "all")}


def _judged(said: Said, scene: Scene) -> dict[str, bool]:
    """With the first thing said to be the first of `scene`."""
    traits = ("shape", "color", "size")
    truth = {
        name: all(words[name] == thing[name] for words, thing in zip(said.things, scene, strict=True))
        for name in traits
    }
    truth["things"] = all(truth.values())
    cells = [tuple(thing["cell"]) for thing in scene]
    steps = [tuple((a > b) - (a < b) for a, b in zip(cells[which], cells[1 - which], strict=True)) for which in (0, 1)]
    claims = [cells[which] == cell for which, cell in said.places]
    claims += [steps[which] == step for which, step in said.relations]
    truth["place"] = bool(claims) and all(claims)
    return truth | {"all": all(truth.values())}


def _step(word: re.Match[str]) -> tuple[int, int]:
    """Rows down and columns right, from the thing that is looked from."""
    down = word["corner"] or word["above"] or word["only_above"]
    across = word["side"] or word["beside"] or word["only_side"]
    return STEPS[down], STEPS[across]
