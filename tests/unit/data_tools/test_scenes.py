"""Scenes, what is said about them, and how they look; the captions are read back by a parser of the test's own."""

import io
import re
from itertools import product
from math import comb
from random import Random

import pytest
from PIL import Image

from data_tools.captions import MANY_TEMPLATES, PAIR_TEMPLATES, draw_questions, draw_wording, place_name, say
from data_tools.drawing import render
from data_tools.scenes import COLORS, SHAPES, Scene, SceneRules, Thing, count_meanings, draw_scene, meaning, swaps

SIZES = {"small": "small", "tiny": "small", "little": "small", "large": "large", "big": "large", "huge": "large"}
NOUN_PHRASE = re.compile(rf"a ({'|'.join(SIZES)}) ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})")
RULES = (SceneRules((2,), 2), SceneRules((2, 3), 2), SceneRules((2, 3), 3))


def is_true(caption: str, scene: Scene) -> bool:
    """Whether the caption describes the scene, judged from its words alone."""
    named = [(shape, color, SIZES[size]) for size, color, shape in NOUN_PHRASE.findall(caption)]
    there = {thing.traits: thing for thing in scene.things}
    if set(named) != set(there) or len(named) != len(scene.things):
        return False
    things = [there[traits] for traits in named]
    names = iter("ABCD")
    skeleton = NOUN_PHRASE.sub(lambda _: next(names), caption)
    return all(fact in _facts(things, scene.grid) for fact in _claims(skeleton))


def _facts(things: list[Thing], grid: int) -> set[str]:
    facts = {f"{name} at {place_name(thing, grid)}" for name, thing in zip("ABCD", things, strict=False)}
    (row, column), (other_row, other_column) = things[0].cell, things[1].cell
    side = {True: "left", False: "right"}[column < other_column] if column != other_column else ""
    height = {True: "above", False: "below"}[row < other_row] if row != other_row else ""
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above", "": ""}
    facts.add(f"A {height}{side} B")
    facts.add(f"B {opposite[height]}{opposite[side]} A")
    return facts


def _claims(skeleton: str) -> list[str]:
    """What the skeleton (things as A, B, C) claims, in one form for each claim."""
    plain = re.sub(r"\b(there is|is|sits|the) ", "", skeleton)
    plain = re.sub(r"to (upper|lower) (left|right) of", r"\1\2", plain)
    plain = re.sub(r"(above|below) and (left|right) of", r"\1\2", plain)
    plain = re.sub(r"(?:to )?(left|right) of", r"\1", plain)
    for word, same in (("upper", "above"), ("lower", "below"), ("over", "above"), ("under", "below")):
        plain = re.sub(rf"\b{word}", same, plain)
    place, relation = r"((?:top|bottom|left|right|center)(?: left| right)?)", r"((?:above|below|left|right)+)"
    forms = (
        (rf"A {relation} B", "A {0} B"),
        (rf"A at {place} and B at {place}", "A at {0}|B at {1}"),
        (rf"at {place} A, at {place} B", "A at {0}|B at {1}"),
        (rf"A at {place}, {relation} B", "A at {0}|A {1} B"),
        (rf"A at {place} with B {relation} it", "A at {0}|B {1} A"),
        (rf"A at {place}, B at {place} and C at {place}", "A at {0}|B at {1}|C at {2}"),
        (rf"{place} A, {place} B and {place} C", "A at {0}|B at {1}|C at {2}"),
    )
    for form, claims in forms:
        if found := re.fullmatch(form, plain):
            return claims.format(*found.groups()).split("|")
    raise AssertionError(f"no reading of {skeleton!r} ({plain!r})")


@pytest.mark.parametrize("rules", RULES)
def test_every_caption_is_true_of_its_scene_and_false_of_every_swap_of_it(rules):
    for number in range(300):
        rng = Random(number)
        scene = draw_scene(rng, rules)
        wording = draw_wording(rng, len(scene.things))
        assert is_true(say(scene, wording), scene)
        for _, twin in swaps(scene):
            assert is_true(say(twin, wording), twin)
            assert not is_true(say(twin, wording), scene)


def test_a_twin_of_traits_has_the_same_words_in_another_order():
    for number in range(200):
        rng = Random(number)
        scene = draw_scene(rng, SceneRules())
        wording = draw_wording(rng, 2)
        for kind, twin in swaps(scene):
            if kind != "place":
                assert words(say(scene, wording)) == words(say(twin, wording))


def words(caption: str) -> list[str]:
    return sorted(caption.replace(",", "").split())


def test_no_swap_leaves_a_scene_that_looks_alike():
    alike = (Thing("ring", "red", "small", (0, 0)), Thing("ring", "red", "large", (0, 1)))
    assert {kind for kind, _ in swaps(Scene(2, alike))} == {"size", "place"}


def test_two_scenes_that_one_caption_fits_mean_the_same():
    first, second = Thing("ring", "red", "small", (0, 0)), Thing("star", "blue", "small", (0, 1))
    lower = Scene(2, (Thing("star", "blue", "small", (1, 1)), Thing("ring", "red", "small", (1, 0))))
    assert meaning(Scene(2, (first, second))) == meaning(lower)


def test_the_meanings_of_a_small_world_are_as_many_as_counted():
    traits = [(shape, color, size) for shape in SHAPES for color in COLORS for size in ("small", "large")]
    cells = [(row, column) for row in range(2) for column in range(2)]
    chosen = set()
    for (first, a), (second, b) in product(product(traits[:4], cells), repeat=2):
        if first != second and a != b:
            chosen.add(meaning(Scene(2, (Thing(*first, a), Thing(*second, b)))))
    assert len(chosen) / comb(4, 2) == count_meanings(SceneRules()) / comb(len(traits), 2)


def test_all_templates_shapes_colors_and_twin_kinds_occur():
    captions, kinds = set(), set()
    for number in range(400):
        rng = Random(number)
        scene = draw_scene(rng, SceneRules((2, 3)))
        wording = draw_wording(rng, len(scene.things))
        captions.add((len(scene.things), wording.template))
        kinds |= {kind for kind, _ in swaps(scene)}
    assert len(captions) == len(PAIR_TEMPLATES) + len(MANY_TEMPLATES)
    assert kinds == {"color", "shape", "size", "place"}


def test_captions_of_two_things_have_at_most_24_words():
    lengths = []
    for number in range(400):
        rng = Random(number)
        lengths.append(len(say(draw_scene(rng, SceneRules((2,), 3)), draw_wording(rng, 2)).split()))
    assert max(lengths) <= 24


@pytest.mark.parametrize("rules", RULES)
def test_questions_name_one_thing_each_and_their_answers_are_right(rules):
    answers = []
    for number in range(300):
        rng = Random(number)
        scene = draw_scene(rng, rules)
        questions = draw_questions(rng, scene)
        assert 2 <= len(questions) <= 4
        for question in questions:
            assert set(question) == {"question", "answer", "kind"}
            _check(question, scene)
            if question["kind"] == "relation":
                answers.append(question["answer"])
    assert 0.35 < answers.count("yes") / len(answers) < 0.65


def _check(question: dict[str, str], scene: Scene) -> None:
    asked, answer = question["question"], question["answer"]
    if question["kind"] == "count":
        assert answer == {2: "two", 3: "three"}[len(scene.things)]
    elif question["kind"] == "object":
        found = [t for t in scene.things if asked == f"what is at the {place_name(t, scene.grid)}?"]
        assert [f"{t.color} {t.shape}" for t in found] == [answer]
    elif question["kind"] == "relation":
        (row, column), (other_row, other_column) = (_only(name, scene).cell for name in _two_names(asked))
        holds = {
            "above": row < other_row,
            "below": row > other_row,
            "left of": column < other_column,
            "right of": column > other_column,
        }
        relation = next(word for word in holds if f" {word} the " in asked)
        assert answer == ("yes" if holds[relation] else "no")
    else:
        name = re.search(r"the ([a-z ]+?)(?: object)?\?", asked)
        thing = _only(name[1], scene)
        truth = {"color": thing.color, "shape": thing.shape, "size": thing.size, "place": place_name(thing, scene.grid)}
        assert answer == truth[question["kind"]]


def _two_names(asked: str) -> list[str]:
    return list(re.fullmatch(r"is the (.+) (?:above|below|left of|right of) the (.+)\?", asked).groups())


def _only(name: str, scene: Scene) -> Thing:
    """The one thing that all words of the name fit."""
    (thing,) = [t for t in scene.things if set(name.split()) <= set(t.traits)]
    return thing


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", ["small", "large"])
def test_a_thing_is_drawn_in_its_color_inside_its_cell_and_larger_when_large(shape, size):
    for number in range(8):
        scene = Scene(2, (Thing(shape, "black", size, (1, 0)),))
        picture = Image.open(io.BytesIO(render(scene, 64, Random(number)))).convert("L")
        assert picture.size == (64, 64)
        left, top, right, bottom = picture.point(lambda level: 255 * (level < 120)).getbbox()
        assert left >= 0 and right <= 32 and top >= 32 and bottom <= 64
        assert (10 <= right - left <= 18) if size == "small" else (18 < right - left <= 32)


def test_two_renderings_of_one_scene_differ_but_one_generator_gives_one():
    scene = draw_scene(Random(0), SceneRules())
    assert render(scene, 64, Random(1)) == render(scene, 64, Random(1)) != render(scene, 64, Random(2))
