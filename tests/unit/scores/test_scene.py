"""What captions of synthetic scenes name, in every wording that the synthetic set has."""

from random import Random

import pytest

from data_tools.captions import draw_wording, say
from data_tools.scenes import Scene, SceneRules, draw_scene
from mmtrain.scores.scene import SIZES, exact_attribute_match, things_named, things_of

RULES = SceneRules(num_objects=(2, 3))


def drawn(count: int) -> tuple[list[str], list[Scene]]:
    rng = Random(0)
    scenes = [draw_scene(rng, RULES) for _ in range(count)]
    return [say(scene, draw_wording(rng, len(scene.things))) for scene in scenes], scenes


def test_true_captions_match_their_scenes_in_every_wording() -> None:
    captions, scenes = drawn(300)
    assert exact_attribute_match(captions, [scene.record() for scene in scenes]) == 1.0
    assert {word for caption in captions for word in caption.split() if word in SIZES} == set(SIZES)


def test_a_caption_of_another_scene_does_not_match() -> None:
    captions, scenes = drawn(50)
    others = [scene.record() for scene in scenes[1:] + scenes[:1]]
    assert exact_attribute_match(captions, others) == 0.0


@pytest.mark.parametrize(
    "caption",
    [
        "a small red ring left of a big blue ring",  # a size exchanged
        "a small red ring",  # one too few
        "a large red ring above a small blue ring and a tiny red cross",  # one too many
        "red ring, small blue ring",  # a size left out
        "",
    ],
)
def test_each_wrong_or_missing_attribute_counts(caption: str) -> None:
    scene = [{"size": "large", "color": "red", "shape": "ring"}, {"size": "small", "color": "blue", "shape": "ring"}]
    assert things_named("a huge red ring above a tiny blue ring") == things_of(scene)
    assert exact_attribute_match([caption], [scene]) == 0.0


def test_captions_without_scenes_are_refused() -> None:
    with pytest.raises(ValueError, match="one scene"):
        exact_attribute_match([], [])
