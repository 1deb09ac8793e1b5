"""Captions of images, batch after batch, by the twin of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mmtrain.data.faults import DataError
from mmtrain.data.heldout import HeldOut
from mmtrain.deploy.pictures import opened
from mmtrain.hf import VLBertForImageCaptioning
from mmtrain.hf.processing import Picture
from mmtrain.scores.truth import shares_right


@dataclass(frozen=True)
class Captioned:
    """What was written about one image, or why nothing could be."""

    name: str
    caption: str | None
    fault: str | None = None


@dataclass(frozen=True)
class HowToWrite:
    """How captions are searched for, in transformers' words."""

    num_beams: int = 4
    max_length: int = 20  # tokens, [CLS] and [SEP] among them
    length_penalty: float = 1.0
    do_sample: bool = False
    temperature: float | None = None
    top_p: float | None = None

    def words(self) -> dict[str, Any]:
        """What `generate` is given: what is None is left to it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def caption_files(
    model: VLBertForImageCaptioning, paths: Sequence[Path], *, batch_size: int, **how: Any
) -> Iterator[Captioned]:
    """A caption of each file, in order; a file that cannot be read is named with the reason and passed over."""
    for start in range(0, len(paths), batch_size):
        found = {path: opened(path) for path in paths[start : start + batch_size]}
        pictures = [picture for picture in found.values() if not isinstance(picture, str)]
        said = iter(captions_of(model, pictures, **how))
        for path, picture in found.items():
            if isinstance(picture, str):
                yield Captioned(str(path), None, picture)
            else:
                yield Captioned(str(path), next(said))


def captions_of(model: VLBertForImageCaptioning, pictures: Sequence[Picture], **how: Any) -> list[str]:
    """One caption a picture."""
    return model.generate(list(pictures), **how) if pictures else []


def seed_draws(seed: int) -> None:
    """Sampling draws the same words again from the same seed."""
    torch.manual_seed(seed)


def heldout_scores(model: VLBertForImageCaptioning, heldout: HeldOut, *, batch_size: int) -> dict[str, float]:
    """How often captions of held-out scenes of two things are right, attribute by attribute; DataError without any."""
    kept = [
        (number, scene)
        for number in range(len(heldout))
        if (scene := heldout.metadata(number).get("scene")) and len(scene) == 2
    ]
    pictures = [(image, scene) for number, scene in kept if (image := heldout.image(number)) is not None]
    if not pictures:
        raise DataError(
            "data.heldout holds no scene of two things, so captions cannot be judged; `mmdata synth` makes such a set"
        )
    said: list[str] = []
    for start in range(0, len(pictures), batch_size):
        images = [image for image, _ in pictures[start : start + batch_size]]
        said += captions_of(model, images, **HowToWrite(max_length=model.config.max_text_length).words())
    return shares_right(said, [scene for _, scene in pictures]) | {"num_pairs": len(pictures)}
