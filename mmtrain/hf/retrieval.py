"""Which text belongs to which image: compared by features, and decided by the match head.

Axes: B images, R texts, E shared embedding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers.utils import ModelOutput

from mmtrain.hf.configuration import VLBertConfig
from mmtrain.hf.generating import WithProcessor
from mmtrain.hf.modeling import VLBertModel
from mmtrain.hf.processing import Pictures

TOGETHER = 1


@dataclass
class VLBertRetrievalOutput(ModelOutput):
    """How well images and texts go together; logits by features are similarity over temperature."""

    loss: torch.Tensor | None = None
    match_logits: torch.Tensor | None = None  # [B, 2]: each image with its text; apart, together
    logits_per_image: torch.Tensor | None = None  # [B, R]
    logits_per_text: torch.Tensor | None = None  # [R, B]
    image_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None


class MatchHead(nn.Module):
    """Fused [CLS] -> two logits: apart, together."""

    def __init__(self, config: VLBertConfig) -> None:
        super().__init__()
        self.logits = nn.Linear(config.hidden_size, 2)

    def forward(self, cls_RH: torch.Tensor) -> torch.Tensor:
        return self.logits(cls_RH).float()


class VLBertForImageTextRetrieval(WithProcessor):
    """Finds images for texts and texts for images."""

    def __init__(self, config: VLBertConfig) -> None:
        super().__init__(config)
        self.vlbert = VLBertModel(config)
        self.match = MatchHead(config)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> VLBertRetrievalOutput | tuple:
        """As many texts as images, each with its own; `labels` [B] are 1 where they belong together, else 0.

        The loss is that of the match head, and the contrast among those that belong together.
        """
        found = self.vlbert(
            input_ids,
            pixel_values,
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        match_logits = self.match(found.last_hidden_state[:, 0])
        similar = found.image_embeds @ found.text_embeds.t() / self.vlbert.contrast.temperature
        loss = None
        if labels is not None:
            loss = F.cross_entropy(match_logits, labels) + contrast_loss(similar, labels == TOGETHER)
        traces = ("image_embeds", "text_embeds", "hidden_states", "attentions", "cross_attentions")
        out = VLBertRetrievalOutput(
            loss=loss,
            match_logits=match_logits,
            logits_per_image=similar,
            logits_per_text=similar.t(),
            **{name: found[name] for name in traces if name in found},
        )
        return out if return_dict is not False else out.to_tuple()

    @torch.no_grad()
    def retrieve(
        self, text: str, images: Pictures | torch.Tensor, *, top_k: int = 5, shortlist: int = 16
    ) -> list[tuple[int, float]]:
        """The pictures that a text describes best, as (number, probability that they belong together), best first.

        Features pick `shortlist` of them. What the match head believes, which looks closer and costs more, plus what
        the features do puts those in order. ValueError where there is no picture, or a number below 1.
        """
        for name, number in (("top_k", top_k), ("shortlist", shortlist)):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} is {number!r}; wanted a number of pictures, 1 or more")
        if not isinstance(text, str):
            raise ValueError(f"text is a {type(text).__name__}; wanted one string")
        pixels, asked = self.pixels_of(images), self.needed_processor()(text=[text]).to(self.device)
        text_1E = self.vlbert.get_text_features(**asked)
        near = (self.vlbert.get_image_features(pixels) @ text_1E[0]).topk(min(shortlist, len(pixels)))
        again = {name: ids.expand(len(near.indices), -1) for name, ids in asked.items()}
        fused = self.vlbert(pixel_values=pixels[near.indices], **again).last_hidden_state
        beliefs, sure = self.beliefs(self.match(fused[:, 0]), near.values)
        best = beliefs.topk(min(top_k, len(beliefs))).indices
        return [(int(near.indices[place]), float(sure[place])) for place in best]

    def beliefs(self, match_logits_K2: torch.Tensor, similar_K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """How strongly pairs are believed in, by match head and features together, and the head's own probabilities."""
        margins_K = match_logits_K2[:, TOGETHER] - match_logits_K2[:, 1 - TOGETHER]
        return margins_K + similar_K / self.vlbert.contrast.temperature, margins_K.sigmoid()


def contrast_loss(logits_BB: torch.Tensor, together_B: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE among the pairs that belong together; 0 without any."""
    if not bool(together_B.any()):
        return logits_BB.new_zeros(())
    logits = logits_BB[together_B][:, together_B]
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.t(), own)) / 2
