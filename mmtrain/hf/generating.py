"""Texts about images, token by token: the token head, and `generate` on transformers' own machinery."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationConfig, GenerationMixin
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from mmtrain.hf.configuration import VLBertConfig
from mmtrain.hf.layers import ImageMemory
from mmtrain.hf.modeling import VLBertModel, VLBertPreTrainedModel
from mmtrain.hf.processing import PROCESSOR_FILE, Pictures, VLBertProcessor, each_text, is_one_picture

IGNORED_LABEL = -100
Images = Pictures | torch.Tensor  # a tensor is a batch of the processor's pixel_values
MAX_PIXEL_VALUE = 8.0  # far beyond the processor's [-1, 1], far below the 255 of pixels that it has not seen


@dataclass
class VLBertTokensOutput(ModelOutput):
    """Logits of the next token at each position, and of the answers where the model chooses among some."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None  # [R, T, vocabulary], or [R, answers]
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None


class TokenHead(nn.Module):
    """Fused tokens -> logits over the vocabulary."""

    def __init__(self, config: VLBertConfig) -> None:
        super().__init__()
        self.vocabulary = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.vocabulary(tokens).float()


class WithProcessor(VLBertPreTrainedModel):
    """A model that carries its processor: loaded with it, saved with it."""

    processor: VLBertProcessor | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any) -> Self | tuple:
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if (Path(pretrained_model_name_or_path) / PROCESSOR_FILE).exists():
            model.processor = VLBertProcessor.from_pretrained(pretrained_model_name_or_path)
        return loaded

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        super().save_pretrained(save_directory, *args, **kwargs)
        if self.processor is not None:
            self.processor.save_pretrained(save_directory)

    def pixels_of(self, images: Images) -> torch.Tensor:
        """Pictures as the model takes them, on its device; the processor's tensors pass as they are.

        ValueError for tensors that cannot be the processor's, as of raw pixels.
        """
        if not isinstance(images, torch.Tensor):
            images = self.needed_processor()(images=images)["pixel_values"]
        else:
            _refuse_unnormalized(images)
        return images.to(self.device)

    def needed_processor(self) -> VLBertProcessor:
        """The processor; ValueError where the model came without one."""
        if self.processor is None:
            raise ValueError(
                "this model has no processor, so it takes tensors and no pictures or words; load it from a folder that "
                "holds one (`mmtrain export` writes it), or set model.processor"
            )
        return self.processor


def _refuse_unnormalized(pixels: torch.Tensor) -> None:
    """ValueError for a tensor that cannot be the processor's `pixel_values`."""
    if not pixels.numel():
        raise ValueError("no images are given; wanted at least one")
    found = str(pixels.dtype)
    is_dense = pixels.layout is torch.strided and not pixels.is_complex()
    if is_dense:
        low, high = pixels.min().item(), pixels.max().item()
        if pixels.is_floating_point() and low >= -MAX_PIXEL_VALUE and high <= MAX_PIXEL_VALUE:  # False of NaN
            return
        found += f" from {low:g} to {high:g}"
    raise ValueError(
        f"pixel_values are {found}{'' if is_dense else f', {pixels.layout}'}; wanted the processor's, in [-1, 1]: "
        "processor(images=...)['pixel_values']"
    )


class GeneratesText(WithProcessor, GenerationMixin):
    """Common to models that write: the token head, and `generate`."""

    looks_back = True  # each token sees the image and the tokens before it
    own_prompt = ""  # that a text begins with where the caller names no beginning; it is not returned as text

    def __init__(self, config: VLBertConfig) -> None:
        super().__init__(config)
        self.vlbert = VLBertModel(config)
        self.token = TokenHead(config)

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *,
        prefix_length: int = 0,
        image_memory: ImageMemory | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> VLBertTokensOutput | tuple:
        """Each token is guessed from the image and the tokens before it.

        `labels` [R, T] are the input ids, -100 where nothing is to be learned; the model shifts them. The loss is
        the mean over what is counted. The first `prefix_length` tokens see each other. `logits_to_keep`: of the last
        positions only; 0 keeps all.
        """
        found = self.vlbert(
            input_ids,
            pixel_values,
            attention_mask,
            position_ids,
            is_causal=self.looks_back,
            prefix_length=prefix_length,
            image_memory=image_memory,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        logits, loss = self.read_off(found.last_hidden_state[:, -logits_to_keep:], labels)
        traces = ("past_key_values", "hidden_states", "attentions", "cross_attentions")
        out = VLBertTokensOutput(loss=loss, logits=logits, **{name: found[name] for name in traces if name in found})
        return out if return_dict is not False else out.to_tuple()

    def read_off(
        self, tokens_RTH: torch.Tensor, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits of what the model is for, and the loss where there are labels."""
        logits = self.token(tokens_RTH)
        return logits, None if labels is None else next_token_loss(logits, labels)

    @torch.no_grad()
    def generate(
        self,
        images: Images | None = None,
        text: str | Sequence[str] | None = None,
        *,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **how: Any,
    ) -> Any:
        """What the model writes about images: strings for pictures, ids (or transformers' output) for tensors.

        One picture gives one string, several a list. `text` begins what is written, one for all or one an image;
        `input_ids` is the same for tensors. `how` is transformers': max_length, num_beams, do_sample, length_penalty,
        ...; with `use_cache=False` nothing is kept from token to token.
        """
        images = pixel_values if images is None else images
        if images is None:
            raise ValueError("nothing to write about: give pictures, or the processor's pixel_values")
        gives_text = not isinstance(images, torch.Tensor)
        if gives_text and how.get("return_dict_in_generate"):
            raise ValueError(
                "return_dict_in_generate is for tensors; pictures give strings: pass the processor's pixel_values"
            )
        pixels = self.pixels_of(images)
        own_prompt = self.own_prompt if text is None and input_ids is None else ""
        text = own_prompt or text
        if text is not None:
            texts = texts_for(pixels, text)
            prompts = self.needed_processor().prompts(texts)
            input_ids, attention_mask = prompts["input_ids"], prompts["attention_mask"]
        elif input_ids is None:
            input_ids = torch.full((len(pixels), 1), self.config.bos_token_id)
        input_ids = input_ids.to(self.device)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(self.device)
        memory = self.vlbert.remember(pixels, keeps=how.get("use_cache", True) is not False)
        written = super().generate(input_ids=input_ids, attention_mask=mask, image_memory=memory, **how)
        if not gives_text:
            return written
        ids = written if isinstance(written, torch.Tensor) else written.sequences
        ids = ids[:, input_ids.shape[1] :] if own_prompt else self._said(ids, input_ids)
        said = self.needed_processor().batch_decode(ids, skip_special_tokens=True)
        said = [words.strip() for words in said]
        return said[0] if len(said) == 1 and is_one_picture(images) else said

    def _said(self, ids: torch.Tensor, prompt_ids: torch.Tensor) -> torch.Tensor:
        """The part of what was written that answers the caller."""
        return ids

    def can_generate(self) -> bool:
        """Whether `generate` may be called: always."""
        return True


def texts_for(pixels: torch.Tensor, text: str | Sequence[str]) -> list[str]:
    """A text for each image; ValueError where there are neither as many nor one for all."""
    texts = each_text(text)
    if isinstance(text, str) or len(texts) == 1:
        return texts * len(pixels)
    if len(texts) != len(pixels):
        raise ValueError(f"{len(texts)} texts for {len(pixels)} images; wanted one text for all, or one an image")
    return texts


def next_token_loss(logits_RTV: torch.Tensor, labels_RT: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each next token that has a label."""
    shifted = logits_RTV[:, :-1].flatten(0, 1), labels_RT[:, 1:].flatten()
    return F.cross_entropy(*shifted, ignore_index=IGNORED_LABEL, reduction="sum") / (
        (shifted[1] != IGNORED_LABEL).sum().clamp_min(1)
    )


def generation_config_of(config: VLBertConfig, special_ids: Sequence[int]) -> GenerationConfig:
    """How texts begin and end, and which ids are never written: special ones, and those without a piece."""
    silent = sorted(set(special_ids) - {config.eos_token_id})
    return GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        suppress_tokens=[*silent, *range(config.num_pieces, config.vocab_size)],
        max_length=config.max_text_length,
    )


class VLBertForImageCaptioning(GeneratesText):
    """Writes captions: `generate(picture, max_length=20, num_beams=4)`."""

    def __init__(self, config: VLBertConfig) -> None:
        super().__init__(config)
        self.own_prompt = config.caption_prompt
        self.post_init()
