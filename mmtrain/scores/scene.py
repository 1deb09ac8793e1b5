"""Whether a caption of a synthetic scene names its things with the right size, color and shape."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

SIZES = {
    **dict.fromkeys(("small", "tiny", "little"), "small"),
    **dict.fromkeys(("large", "big", "huge"), "large"),
}
NAMED = re.compile(rf"\b({'|'.join(SIZES)}) (\w+) (\w+)")
Thing = tuple[str, str, str]  # size, color, shape


def things_named(caption: str) -> Counter[Thing]:
    """Every "<size> <color> <shape>" of a caption, sizes by their first synonym."""
    return Counter((SIZES[size], color, shape) for size, color, shape in NAMED.findall(caption.lower()))


def things_of(scene: Sequence[Mapping[str, object]]) -> Counter[Thing]:
    """The same of the scene that `mmdata synth` keeps beside the image."""
    return Counter((str(thing["size"]), str(thing["color"]), str(thing["shape"])) for thing in scene)


def exact_attribute_match(captions: Sequence[str], scenes: Sequence[Sequence[Mapping[str, object]]]) -> float:
    """Share of the captions that name all things of their scene, each with its three attributes, and no other.

    Places are not asked for. ValueError without a caption.
    """
    if len(captions) != len(scenes) or not captions:
        raise ValueError(f"{len(captions)} captions of {len(scenes)} scenes; wanted one of each, and one scene")
    both = zip(captions, scenes, strict=True)
    return sum(things_named(caption) == things_of(scene) for caption, scene in both) / len(captions)
