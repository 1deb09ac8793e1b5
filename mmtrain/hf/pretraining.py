"""The four losses of pretraining on the twin, in one process and plain PyTorch: the engine is tested against them.

Axes: B samples, T text positions, E shared embedding, G pools of P samples.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers.utils import ModelOutput

from mmtrain.config.schema import LossConfig
from mmtrain.hf.configuration import VLBertConfig
from mmtrain.hf.generating import TokenHead
from mmtrain.hf.modeling import VLBertModel, VLBertPreTrainedModel
from mmtrain.hf.retrieval import TOGETHER, MatchHead
from mmtrain.pixels import normalize


@dataclass
class VLBertPreTrainingOutput(ModelOutput):
    """The weighted sum and its four parts, each a mean over what it counts in the batch."""

    loss: torch.Tensor | None = None
    loss_mlm: torch.Tensor | None = None
    loss_itc: torch.Tensor | None = None
    loss_itm: torch.Tensor | None = None
    loss_lm: torch.Tensor | None = None


@dataclass(frozen=True)
class Samples:
    """A global batch as a run reads it; the names are those of records.Batch."""

    images_BCHW: torch.Tensor  # uint8
    text_ids_BT: torch.Tensor
    masked_ids_BT: torch.Tensor
    masked_labels_BT: torch.Tensor
    text_lengths_B: torch.Tensor
    has_image_B: torch.Tensor
    has_text_B: torch.Tensor
    image_ids_B: torch.Tensor
    caption_ids_B: torch.Tensor
    draws_B2: torch.Tensor

    @property
    def pair_B(self) -> torch.Tensor:
        """Which samples have both an image and a text."""
        return self.has_image_B & self.has_text_B


class VLBertForPreTraining(VLBertPreTrainedModel):
    """All heads at once, and L = mlm L_MLM + itc L_ITC + vlp (L_ITM + L_LM)."""

    def __init__(self, config: VLBertConfig) -> None:
        super().__init__(config)
        self.vlbert = VLBertModel(config)
        self.match = MatchHead(config)
        self.token = TokenHead(config)
        self.post_init()

    def forward(self, samples: Samples, *, pool_size: int, weights: LossConfig) -> VLBertPreTrainingOutput:
        """Losses of one batch: every pair is told from all its others, hard negatives come from pools of neighbours."""
        pixels_BCHW = normalize(samples.images_BCHW)
        known_BT = torch.arange(samples.text_ids_BT.shape[1]) < samples.text_lengths_B.clamp_min(1)[:, None]
        true = self._run(samples, samples.text_ids_BT, known_BT, pixels_BCHW)
        masked = self._run(samples, samples.masked_ids_BT, known_BT, pixels_BCHW)
        causal = self._run(samples, samples.text_ids_BT, known_BT, pixels_BCHW, is_causal=True)
        next_BT = F.pad(samples.text_ids_BT[:, 1:], (0, 1))
        has_next_BT = torch.arange(next_BT.shape[1]) < (samples.text_lengths_B - 1)[:, None]
        losses = {
            "loss_mlm": self._token_loss(masked, samples.masked_labels_BT),
            "loss_itc": self._contrast(true.image_embeds, true.text_embeds, samples.pair_B),
            "loss_itm": self._match(samples, known_BT, pixels_BCHW, true, pool_size),
            "loss_lm": self._token_loss(causal, next_BT.masked_fill(~has_next_BT, -100)),
        }
        factors = {
            "loss_mlm": weights.mlm,
            "loss_itc": weights.itc,
            "loss_itm": weights.of_itm,
            "loss_lm": weights.of_lm,
        }
        return VLBertPreTrainingOutput(loss=sum(factors[name] * loss for name, loss in losses.items()), **losses)

    def _run(
        self, samples: Samples, ids: torch.Tensor, known: torch.Tensor, pixels: torch.Tensor, is_causal: bool = False
    ) -> ModelOutput:
        return self.vlbert(ids, pixels, known, has_image=samples.has_image_B, is_causal=is_causal)

    def _token_loss(self, found: ModelOutput, labels_BT: torch.Tensor) -> torch.Tensor:
        logits = self.token(found.last_hidden_state).flatten(0, 1)
        total = (labels_BT >= 0).sum().clamp_min(1)
        return F.cross_entropy(logits, labels_BT.flatten(), ignore_index=-100, reduction="sum") / total

    def _contrast(self, image_BE: torch.Tensor, text_BE: torch.Tensor, pair_B: torch.Tensor) -> torch.Tensor:
        logits = image_BE[pair_B] @ text_BE[pair_B].t() / self.vlbert.contrast.temperature
        own = torch.arange(len(logits))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.t(), own)) / 2

    def _match(
        self,
        samples: Samples,
        known_BT: torch.Tensor,
        pixels_BCHW: torch.Tensor,
        true: ModelOutput,
        pool_size: int,
    ) -> torch.Tensor:
        """Pairs against hard negatives: another image of the pool for each text, another text for each image."""
        similar_BB = true.image_embeds.detach() @ true.text_embeds.detach().t() / self.vlbert.contrast.temperature
        found = [hard_negatives(samples, similar_BB.detach(), place, pool_size) for place in range(len(pixels_BCHW))]
        has = [place for place, (image, _) in enumerate(found) if image is not None]
        pairs = [(place, place, TOGETHER) for place in samples.pair_B.nonzero().flatten().tolist()]
        pairs += [(found[place][0], place, 1 - TOGETHER) for place in has]
        pairs += [(place, found[place][1], 1 - TOGETHER) for place in has]
        images, texts, truth = (torch.tensor(column) for column in zip(*pairs, strict=True))
        fused = self.vlbert(samples.text_ids_BT[texts], pixels_BCHW[images], known_BT[texts]).last_hidden_state
        return F.cross_entropy(self.match(fused[:, 0]), truth)


def hard_negatives(
    samples: Samples, similar_BB: torch.Tensor, place: int, pool_size: int
) -> tuple[int | None, int | None]:
    """An image for the text at `place` and a text for its image, drawn by likeness from its pool; None without any.

    The first candidate up to which the chances, in order, add up to more than the sample's own draw.
    """
    first = place // pool_size * pool_size
    legal = [
        other
        for other in range(first, first + pool_size)
        if samples.pair_B[place] and samples.pair_B[other]
        and samples.image_ids_B[other] != samples.image_ids_B[place]
        and samples.caption_ids_B[other] != samples.caption_ids_B[place]
    ]  # fmt: skip
    if not legal:
        return None, None
    drawn = []
    for way, scores in enumerate((similar_BB[legal, place], similar_BB[place, legal])):
        chances = scores.double().softmax(dim=0).cumsum(dim=0)
        below = int((chances <= samples.draws_B2[place, way] * chances[-1]).sum())
        drawn.append(legal[min(below, len(legal) - 1)])
    return drawn[0], drawn[1]
