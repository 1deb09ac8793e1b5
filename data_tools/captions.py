"""What is said about a scene: captions in varied wording, and questions with their answers."""

from dataclasses import dataclass
from random import Random

from data_tools.scenes import Scene, Thing, offset

SIZE_WORDS = {"small": ("small", "tiny", "little"), "large": ("large", "big", "huge")}
RELATION_WORDS = {
    (0, -1): ("to the left of", "left of"),
    (0, 1): ("to the right of", "right of"),
    (-1, 0): ("above", "over"),
    (1, 0): ("below", "under"),
    (-1, -1): ("above and left of", "to the upper left of"),
    (-1, 1): ("above and right of", "to the upper right of"),
    (1, -1): ("below and left of", "to the lower left of"),
    (1, 1): ("below and right of", "to the lower right of"),
}
# {a} and {b} are things, {a_rel_b} where a stands seen from b, {at_a} the place of a in the picture.
PAIR_TEMPLATES = (
    "{a} {a_rel_b} {b}",
    "{a} is {a_rel_b} {b}",
    "{a} sits {a_rel_b} {b}",
    "there is {a} {a_rel_b} {b}",
    "{a} at the {at_a} and {b} at the {at_b}",
    "at the {at_a} {a}, at the {at_b} {b}",
    "{a} at the {at_a}, {a_rel_b} {b}",
    "{b} at the {at_b} with {a} {a_rel_b} it",
)
MANY_TEMPLATES = ("{thing} at the {place}", "{place} {thing}")
NUMBER_WORDS = {1: "one", 2: "two", 3: "three", 4: "four"}
MAX_QUESTIONS = 4


@dataclass(frozen=True)
class Wording:
    """The choices behind a caption that are not facts: in one wording, captions of two scenes differ in facts alone."""

    order: tuple[int, ...]  # which thing is named first, second, ...
    template: int
    relation: int
    small: int  # which synonym; one per size, so that a twin that swaps sizes has the same words
    large: int


def draw_wording(rng: Random, num_things: int) -> Wording:
    """A wording, each choice with equal chance."""
    templates = PAIR_TEMPLATES if num_things == 2 else MANY_TEMPLATES
    return Wording(
        order=tuple(rng.sample(range(num_things), num_things)),
        template=rng.randrange(len(templates)),
        relation=rng.randrange(2),
        small=rng.randrange(len(SIZE_WORDS["small"])),
        large=rng.randrange(len(SIZE_WORDS["large"])),
    )


def say(scene: Scene, wording: Wording) -> str:
    """The caption of the scene in this wording: color, shape and size of every thing, and its place or relation."""
    things = [scene.things[i] for i in wording.order]
    phrases = [_phrase(thing, wording) for thing in things]
    places = [place_name(thing, scene.grid) for thing in things]
    if len(things) == 2:
        return PAIR_TEMPLATES[wording.template].format(
            a=phrases[0],
            b=phrases[1],
            a_rel_b=RELATION_WORDS[offset(things[0], things[1])][wording.relation],
            at_a=places[0],
            at_b=places[1],
        )
    template = MANY_TEMPLATES[wording.template]
    parts = [template.format(thing=phrase, place=place) for phrase, place in zip(phrases, places, strict=True)]
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def place_name(thing: Thing, grid: int) -> str:
    """The cell in words: "top left", "center", ...; grids of 2 or 3."""
    rows, columns = (
        (("top", "bottom"), ("left", "right")) if grid == 2 else (("top", "", "bottom"), ("left", "", "right"))
    )
    return f"{rows[thing.cell[0]]} {columns[thing.cell[1]]}".strip() or "center"


def draw_questions(rng: Random, scene: Scene) -> list[dict[str, str]]:
    """Two to four questions with their only answers, yes and no equally often over many scenes."""
    count = {"question": "how many objects are there?", "answer": NUMBER_WORDS[len(scene.things)], "kind": "count"}
    asked = [_relation_question(rng, scene)]
    asked += [question for thing in scene.things for question in _trait_questions(thing, scene)]
    rest = rng.sample(asked[1:], rng.randint(1, MAX_QUESTIONS - 2))
    return [asked[0], *rest, *([count] if rng.random() < 0.5 else [])]


def _phrase(thing: Thing, wording: Wording) -> str:
    word = SIZE_WORDS[thing.size][wording.small if thing.size == "small" else wording.large]
    return f"a {word} {thing.color} {thing.shape}"


def _trait_questions(thing: Thing, scene: Scene) -> list[dict[str, str]]:
    """What can be asked of this thing without naming another by mistake."""
    others = [other for other in scene.things if other is not thing]
    place = place_name(thing, scene.grid)
    asked = [{"question": f"what is at the {place}?", "answer": f"{thing.color} {thing.shape}", "kind": "object"}]
    if all(other.shape != thing.shape for other in others):
        asked.append({"question": f"what color is the {thing.shape}?", "answer": thing.color, "kind": "color"})
        asked.append({"question": f"where is the {thing.shape}?", "answer": place, "kind": "place"})
    if all(other.color != thing.color for other in others):
        asked.append({"question": f"what shape is the {thing.color} object?", "answer": thing.shape, "kind": "shape"})
    if all((other.color, other.shape) != (thing.color, thing.shape) for other in others):
        asked.append({"question": f"how big is the {thing.color} {thing.shape}?", "answer": thing.size, "kind": "size"})
    return asked


def _relation_question(rng: Random, scene: Scene) -> dict[str, str]:
    """A yes-or-no question along an axis in which the two things differ."""
    first, second = rng.sample(scene.things, 2)
    down, right = offset(first, second)
    words = [(down, ("above", "below"))] if down else []
    words += [(right, ("left of", "right of"))] if right else []
    sign, (before, after) = rng.choice(words)
    answer = rng.choice(("yes", "no"))
    relation = (before if sign < 0 else after) if answer == "yes" else (after if sign < 0 else before)
    question = f"is the {_reference(first, scene)} {relation} the {_reference(second, scene)}?"
    return {"question": question, "answer": answer, "kind": "relation"}


def _reference(thing: Thing, scene: Scene) -> str:
    """The shortest name that only this thing bears."""
    others = [other for other in scene.things if other is not thing]
    if all(other.shape != thing.shape for other in others):
        return thing.shape
    if all((other.color, other.shape) != (thing.color, thing.shape) for other in others):
        return f"{thing.color} {thing.shape}"
    return f"{thing.size} {thing.color} {thing.shape}"
