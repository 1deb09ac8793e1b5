"""What the twin of a run writes about images, batch after batch: captions, or answers to a question."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mmtrain.data.faults import DataError
from mmtrain.data.heldout import HeldOut
from mmtrain.deploy.pictures import opened
from mmtrain.hf import VLBertForImageCaptioning, VLBertForVisualQuestionAnswering
from mmtrain.hf.processing import Picture
from mmtrain.scores.truth import as_scene, shares_right

Write = Callable[[Sequence[Picture]], list[str]]  # one text a picture


@dataclass(frozen=True)
class Written:
    """What was written about one image, or why nothing could be."""

    name: str
    text: str | None
    fault: str | None = None


@dataclass(frozen=True)
class HowToWrite:
    """How texts are searched for, in transformers' words."""

    num_beams: int = 4
    max_length: int | None = None  # tokens, [CLS] and [SEP] among them
    max_new_tokens: int | None = None  # behind a question
    length_penalty: float = 1.0
    do_sample: bool = False
    temperature: float | None = None
    top_p: float | None = None

    def words(self) -> dict[str, Any]:
        """What `generate` is given: what is None is left to it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def write_about(paths: Sequence[Path], write: Write, *, batch_size: int) -> Iterator[Written]:
    """A text about each file, in order; a file that cannot be read is named with the reason and passed over."""
    for start in range(0, len(paths), batch_size):
        batch = [(path, opened(path)) for path in paths[start : start + batch_size]]
        pictures = [picture for _, picture in batch if not isinstance(picture, str)]
        texts = iter(write(pictures) if pictures else ())
        for path, picture in batch:
            if isinstance(picture, str):
                yield Written(str(path), None, picture)
            else:
                yield Written(str(path), next(texts))


def captions_of(model: VLBertForImageCaptioning, how: HowToWrite, pictures: Sequence[Picture]) -> list[str]:
    """One caption a picture."""
    return model.generate(list(pictures), **how.words())


def answers_of(
    model: VLBertForVisualQuestionAnswering, question: str, how: HowToWrite, pictures: Sequence[Picture]
) -> list[str]:
    """The answer to a question, picture by picture; one that chooses among answers does not ask how."""
    return model.answer(list(pictures), question, **how.words())


def prompt_length(model: VLBertForImageCaptioning) -> int:
    """Tokens that every caption of this model begins with: [CLS] and its prompt."""
    prompt = model.config.caption_prompt
    return model.needed_processor().prompts([prompt])["input_ids"].shape[1] if prompt else 1


def seed_draws(seed: int) -> None:
    """Sampling draws the same words again from the same seed."""
    torch.manual_seed(seed)


def heldout_scores(model: VLBertForImageCaptioning, heldout: HeldOut, *, batch_size: int) -> dict[str, float]:
    """How often captions of held-out scenes of two things are right, attribute by attribute; DataError without any."""
    kept = [
        (number, scene)
        for number in range(len(heldout))
        if (scene := as_scene(heldout.metadata(number).get("scene"))) is not None
    ]
    pictures = [(image, scene) for number, scene in kept if (image := heldout.image(number)) is not None]
    if not pictures:
        raise DataError(
            "data.heldout holds no scene of two things, so captions cannot be judged; `mmdata synth` makes such a set"
        )
    said: list[str] = []
    for start in range(0, len(pictures), batch_size):
        images = [image for image, _ in pictures[start : start + batch_size]]
        said += captions_of(model, HowToWrite(max_length=model.config.max_text_length), images)
    return shares_right(said, [scene for _, scene in pictures]) | {"num_pairs": len(pictures)}
