"""One sample, ready to be laid into a batch: read, decoded, cropped, tokenized and masked.

Whatever is raised while one sample is read makes one BadSample, and never ends the run: the bytes come from outside,
and decoders, parsers and tokenizers raise nearly anything on them. `SampleReader` is the one place where that happens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from mmtrain.data.augment import fit, jitter, mirror, random_crop
from mmtrain.data.draws import Draws, Purpose
from mmtrain.data.ids import id_of, id_of_image, name_of_caption
from mmtrain.data.images import Content, ImageError, check, decode
from mmtrain.data.masking import mask_tokens
from mmtrain.data.question_schema import Question, parse_questions
from mmtrain.data.questions import Asking
from mmtrain.data.table import SampleError, SampleTable, as_caption, as_captions, as_image, as_metadata
from mmtrain.data.tokenizer import Tokenizer

KINDS = {
    "image_text": ("image", "caption", "metadata"),
    "text": ("caption", "metadata"),
    "image": ("image", "metadata"),
}  # by modality: what is read of a sample
ASKED = ("image", "metadata")  # where questions take the place of captions
NO_TOKENS = np.empty(0, np.int64)


@dataclass(frozen=True)
class Sample:
    """An image, its caption, or both; the axes are those of records.Batch without B."""

    image_CHW: torch.Tensor | None  # uint8; None without an image, or where images are not decoded
    ids_T: np.ndarray  # int64: [CLS] caption [SEP]; empty without a caption
    masked_ids_T: np.ndarray  # int64
    masked_labels_T: np.ndarray  # int64
    image_id: int | None  # None without an image
    caption_id: int | None  # None without a caption
    draws_2: np.ndarray  # float64
    prompt_length: int = 1  # of ids_T: [CLS], and what a task puts before the words that are to be written
    prefix_length: int = 1  # of ids_T: what is read both ways also where the rest looks only back
    targets: tuple[tuple[int, float], ...] = ()  # numbers of the answers to choose, and how right each is


@dataclass(frozen=True)
class BadSample:
    """A sample that cannot be used."""

    sample: int  # its number in the table; with pairs broken apart perhaps not the one that was asked for
    reason: str


def bad_sample(sample: int, error: Exception) -> BadSample:
    """The bad sample that `error` makes; of an error that nobody foresaw the reason tells type, file and line."""
    if isinstance(error, SampleError | ImageError):
        return BadSample(sample, str(error))
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" in {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return BadSample(sample, f"cannot be read ({type(error).__name__}{where}: {error})")


@dataclass(frozen=True)
class Draft:
    """A sample whose pixels are still in their file."""

    number: int  # in its set
    epoch: int
    shown: int  # the sample whose image it is
    content: Content | None  # the image file
    caption: str  # empty without one
    sample_without_image: Sample


@dataclass(frozen=True)
class Look:
    """How an image is shown."""

    image_size: int  # pixels
    min_crop_share: float = 1.0
    flip: bool = False
    color_jitter: float = 0.0
    is_needed: bool = True  # False: images are checked but not decoded, and all else is the same


@dataclass(frozen=True)
class SampleReader:
    """Reads the samples of one set by number; what is random about one is drawn from (seed, epoch, its number)."""

    table: SampleTable
    tokenizer: Tokenizer
    seed: int
    look: Look
    max_text_length: int  # tokens
    mask_share: float
    modality: str = "image_text"
    first: int = 0  # number in the run of the set's first sample
    image_of: np.ndarray | None = None  # the sample whose image goes with each caption; None: its own
    caption_of: Callable[[int], str] | None = None  # the caption of a sample; None: as it is stored
    draws_captions: bool = False  # of a sample with several captions each epoch another; else the first
    prompt: str = ""  # words before every caption, which no loss asks for
    asking: Asking | None = None  # a question of the sample takes the caption's place, each epoch another
    _draws: Draws = field(init=False)
    _prompt_length: int = field(init=False)  # tokens, [CLS] among them

    def __post_init__(self) -> None:
        object.__setattr__(self, "_draws", Draws(self.seed))
        prompt = self.tokenizer.encode(self.prompt, self.max_text_length)
        object.__setattr__(self, "_prompt_length", len(prompt) - 1)  # it has no [SEP]: the caption goes on

    def read(self, sample: int, epoch: int = 0, question: Question | None = None) -> Sample | BadSample:
        """The sample as it is in `epoch`, or why it cannot be used; with `question` that is asked of it."""
        draft = self.draft(sample, epoch, question)
        return draft if isinstance(draft, BadSample) else self.finish(draft)

    def draft(self, sample: int, epoch: int = 0, question: Question | None = None) -> Draft | BadSample:
        """All of the sample but its pixels: whoever reads many makes drafts of all first, which is quicker."""
        shown = sample if self.image_of is None else int(self.image_of[sample])
        at_fault = shown
        try:
            found = self.table.contents(shown, KINDS[self.modality] if self.asking is None else ASKED)
            said = as_metadata(found["metadata"])
            content = image_id = None
            if "image" in found:
                content = as_image(found["image"])
                image_id = id_of(said.get("image_id")) or id_of_image(content)
            at_fault = sample
            if shown != sample:
                found = self.table.contents(sample, ("caption", "metadata"))
                said = as_metadata(found["metadata"])
            if self.asking is None:
                text, finished = self._captioned(sample, epoch, image_id, found, said)
            else:
                text, finished = self._asked(sample, epoch, image_id, question, said)
        except Exception as error:
            return bad_sample(at_fault, error)
        return Draft(sample, epoch, shown, content, text, finished)

    def _captioned(
        self, sample: int, epoch: int, image_id: int | None, found: dict[str, Content | None], said: dict
    ) -> tuple[str, Sample]:
        caption, caption_id = self._caption(sample, epoch, found, said)
        begun = caption if caption is None or not self.prompt else f"{self.prompt} {caption}"
        tokens, draws_2 = self._tokens(begun, sample, epoch), self._negatives(sample, epoch)
        return caption or "", Sample(None, *tokens, image_id, caption_id, draws_2, self._prompt_length)

    def _negatives(self, sample: int, epoch: int) -> np.ndarray:
        return self._draws.at(Purpose.NEGATIVES, epoch, self.first + sample).random(2)

    def _asked(
        self, sample: int, epoch: int, image_id: int | None, question: Question | None, said: dict
    ) -> tuple[str, Sample]:
        """A question and an answer of one of the people, each drawn anew every epoch, as text and targets."""
        numbers = self._draws.at(Purpose.QUESTION, epoch, self.first + sample)
        if question is None:
            asked = [one for one in parse_questions(said) if one.answers]
            if not asked:
                raise SampleError('its .json has no "questions" with an answer')
            question = asked[numbers.integers(len(asked))]
        answer = question.answers[numbers.integers(len(question.answers))] if question.answers else None
        ids_T, prompt_length = self.asking.tokens(question.text, answer, self.tokenizer, self.max_text_length)
        masks, targets = self._masked(ids_T, sample, epoch), self.asking.targets(question.answers)
        shown = Sample(
            None, ids_T, *masks, image_id, id_of(question.text), self._negatives(sample, epoch),
            prompt_length, prompt_length, targets,
        )  # fmt: skip
        return f"{question.text} {answer or ''}", shown

    def finish(self, draft: Draft, out_HWC: np.ndarray | None = None) -> Sample | BadSample:
        """The sample of a draft, or why it cannot be used; its image is of the shape of `out_HWC`, perhaps in it."""
        if draft.content is None:
            return draft.sample_without_image
        try:
            if not self.look.is_needed:
                check(draft.content)
                return draft.sample_without_image
            pixels_CHW = decode(draft.content)
            return replace(draft.sample_without_image, image_CHW=self._augment(pixels_CHW, draft, out_HWC))
        except Exception as error:
            return bad_sample(draft.shown, error)

    def _caption(
        self, sample: int, epoch: int, found: dict[str, Content | None], said: dict
    ) -> tuple[str | None, int | None]:
        """The caption and what stands for it; None each where the set has none."""
        if "caption" not in found:
            return None, None
        if self.caption_of is not None:  # another caption than the stored one, so it has not its name
            caption, name = self.caption_of(sample), None
        else:
            caption, name = as_caption(found["caption"]), said.get("caption_id")
            if self.draws_captions and (captions := as_captions(said)):
                number = self._draws.at(Purpose.CAPTION, epoch, self.first + sample).integers(len(captions))
                if (drawn := captions[number]) != caption:
                    caption, name = drawn, name and name_of_caption(drawn)
        return caption, id_of(name) or id_of(caption)

    def _augment(self, pixels_CHW: torch.Tensor, draft: Draft, out_HWC: np.ndarray | None) -> torch.Tensor:
        look, place = self.look, (draft.epoch, self.first + draft.number)
        sides = (look.image_size, look.image_size) if out_HWC is None else out_HWC.shape[:2]
        if look.min_crop_share < 1:
            out_CHW = None if out_HWC is None else torch.from_numpy(out_HWC).permute(2, 0, 1)
            numbers = self._draws.at(Purpose.CROP, *place)
            image_CHW = random_crop(pixels_CHW, sides, look.min_crop_share, numbers, out_CHW)
        else:
            image_CHW = fit(pixels_CHW, sides)
        if look.flip:
            image_CHW = mirror(image_CHW, draft.caption, self._draws.at(Purpose.FLIP, *place))
        if look.color_jitter:
            image_CHW = jitter(image_CHW, look.color_jitter, self._draws.at(Purpose.COLOR, *place))
        return image_CHW

    def _tokens(self, caption: str | None, sample: int, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if caption is None:
            return NO_TOKENS, NO_TOKENS, NO_TOKENS
        ids_T = np.array(self.tokenizer.encode(caption, self.max_text_length), np.int64)
        return ids_T, *self._masked(ids_T, sample, epoch)

    def _masked(self, ids_T: np.ndarray, sample: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids to show and labels to guess, for masked language modeling."""
        numbers = self._draws.at(Purpose.MASK, epoch, self.first + sample)
        return mask_tokens(ids_T, self.mask_share, self.tokenizer.ordinary, self.tokenizer.mask_id, numbers)
