"""Answers to questions about images: written token by token, or chosen from a list."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mmtrain.hf.configuration import VLBertConfig
from mmtrain.hf.generating import GeneratesText, Images, texts_for
from mmtrain.hf.processing import each_text, is_one_picture


class VLBertForVisualQuestionAnswering(GeneratesText):
    """Answers questions: chooses one of `config.answers`, or where there are none writes behind the question."""

    def __init__(self, config: VLBertConfig) -> None:
        super().__init__(config)
        self.answer_head = None
        if config.answers is not None:
            self.answer_head = nn.Linear(config.hidden_size, len(config.answers))
        self.post_init()

    @property
    def looks_back(self) -> bool:
        """One that chooses reads the whole question at once."""
        return self.answer_head is None

    def read_off(
        self, tokens_RTH: torch.Tensor, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One that writes learns as a captioner: question [SEP] answer [SEP], with labels on the answer.

        Its question is read both ways: `prefix_length` says how long it is.

        One that chooses has logits [R, answers]; its labels are the number of the right answer [R], or how good each
        answer is [R, answers], in [0, 1].
        """
        if self.answer_head is None:
            return super().read_off(tokens_RTH, labels)
        logits = self.answer_head(tokens_RTH[:, 0]).float()
        return logits, None if labels is None else answer_loss(logits, labels)

    @torch.no_grad()
    def answer(self, images: Images, questions: str | Sequence[str], **how: Any) -> str | list[str]:
        """The answer to a question about a picture, or one for each picture; `how` goes to `generate`."""
        questions = questions if isinstance(questions, str) else each_text(questions)
        if self.answer_head is None:
            return self.generate(images, questions, **how)
        pixels = self.pixels_of(images)
        asked = self.needed_processor()(text=texts_for(pixels, questions)).to(self.device)
        chosen = self(asked["input_ids"], pixels, asked["attention_mask"]).logits.argmax(dim=-1).tolist()
        answers = [self.config.answers[number] for number in chosen]
        return answers[0] if is_one_picture(images) else answers

    def generate(self, images: Images | None = None, text: str | Sequence[str] | None = None, **how: Any) -> Any:
        """As a captioner's; `text` is the question, cut where it leaves the answer no room, which stands behind it."""
        if self.answer_head is not None:
            raise ValueError("this model chooses among config.answers and does not write; call answer(...)")
        if text is not None:
            if how.get("return_dict_in_generate"):
                raise ValueError("return_dict_in_generate is for tensors; a question in words gives strings")
            if images is None:
                images = how.pop("pixel_values", None)
            if images is None:
                raise ValueError("nothing to ask about: give pictures, or the processor's pixel_values")
            one, images = is_one_picture(images), self.pixels_of(images)
            room = self.config.answer_tokens
            prompts = self.needed_processor().prompts(texts_for(images, text), ends=True, room=room)
            length = prompts["input_ids"].shape[1]
            # One of the two lengths: the generation config has a max_length, and transformers warns of both.
            num_new = how.pop("max_new_tokens", room)
            how = {"max_length": length + num_new, "prefix_length": length} | how
            ids = super().generate(images, **prompts, **how)
            ids = ids if isinstance(ids, torch.Tensor) else ids.sequences
            said = self.needed_processor().batch_decode(self._said(ids, prompts["input_ids"]), skip_special_tokens=True)
            return said[0] if one and len(said) == 1 else said
        return super().generate(images, **how)

    def _said(self, ids: torch.Tensor, prompt_ids: torch.Tensor) -> torch.Tensor:
        return ids[:, prompt_ids.shape[1] :]


def answer_loss(logits_RA: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the right answer, or over answers that are right to some degree (Teney et al. 2017)."""
    if labels.dim() == 1:
        return F.cross_entropy(logits_RA, labels)
    return F.binary_cross_entropy_with_logits(logits_RA, labels.float(), reduction="sum") / len(labels)
