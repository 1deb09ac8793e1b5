"""Captions of scenes, judged attribute by attribute, places too."""

from random import Random

import pytest

from data_tools.captions import PAIR_TEMPLATES, Wording, draw_wording, say
from data_tools.scenes import Scene, SceneRules, Thing, draw_scene, meaning, swaps
from mmtrain.scores.truth import right, shares_right

SCENE = Scene(2, (Thing("star", "blue", "small", (0, 0)), Thing("ring", "red", "large", (1, 1))))


def test_every_wording_of_a_scene_is_all_right() -> None:
    rng = Random(0)
    for _ in range(2000):
        scene = draw_scene(rng, SceneRules())
        caption = say(scene, draw_wording(rng, 2))
        assert all(right(caption, scene.record()).values()), (caption, scene)


def test_a_caption_of_another_scene_is_not_all_right() -> None:
    rng = Random(1)
    for _ in range(2000):
        scene, other = draw_scene(rng, SceneRules()), draw_scene(rng, SceneRules())
        if meaning(scene) != meaning(other):
            assert not right(say(other, draw_wording(rng, 2)), scene.record())["all"]


def test_a_twin_that_swaps_one_attribute_is_wrong_in_it() -> None:
    rng = Random(2)
    for _ in range(500):
        scene = draw_scene(rng, SceneRules())
        for _kind, twin in swaps(scene):
            assert not right(say(twin, draw_wording(rng, 2)), scene.record())["all"]


@pytest.mark.parametrize("template", range(len(PAIR_TEMPLATES)))
@pytest.mark.parametrize(("wrong", "name"), [("green", "color"), ("cross", "shape"), ("large", "size")])
def test_only_the_attribute_that_is_wrong_is_wrong(template: int, wrong: str, name: str) -> None:
    caption = say(SCENE, Wording((0, 1), template, 0, 0, 0))
    truth = {"color": "blue", "shape": "star", "size": "small"}[name]
    judged = right(caption.replace(truth, wrong), SCENE.record())
    assert {attribute for attribute, is_right in judged.items() if not is_right} == {name, "things", "all"}


@pytest.mark.parametrize("caption", ["", "a small blue star", "a small blue star and nothing above", "x" * 50])
def test_a_caption_that_names_no_two_things_has_nothing_right(caption: str) -> None:
    assert not any(right(caption, SCENE.record()).values())


def test_a_caption_without_a_place_has_no_place_right() -> None:
    judged = right("a small blue star and a big red ring", SCENE.record())
    assert judged == {"shape": True, "color": True, "size": True, "things": True, "place": False, "all": False}


def test_shares_are_means_over_captions() -> None:
    captions = ["a tiny blue star above and left of a huge red ring", "a tiny blue star under a huge red ring"]
    shares = shares_right(captions, [SCENE.record()] * 2)
    assert shares["caption_all_right"] == shares["caption_place_right"] == 0.5
    assert shares["caption_color_right"] == 1.0
    with pytest.raises(ValueError, match="no captions"):
        shares_right([], [])
