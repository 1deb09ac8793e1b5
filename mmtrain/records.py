"""The things that flow through the system. No behaviour beyond moving a batch to a device.

Axes: B samples, C channels, H and W pixels, T text positions, R fusion rows, E shared embedding,
V vocabulary, N picked tokens, A answers to choose from, K of them that are right.
"""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import torch

IGNORED_LABEL = -100  # a token position that no loss reads


@dataclass(frozen=True)
class Batch:
    """One rank's share of one micro-batch: everything random about it was drawn from (seed, epoch, place)."""

    images_BCHW: "torch.Tensor"  # uint8, not yet normalized; zeros where there is none
    text_ids_BT: "torch.Tensor"  # int64: [CLS] caption [SEP] [PAD]...
    masked_ids_BT: "torch.Tensor"  # int64: the same with some tokens masked
    masked_labels_BT: "torch.Tensor"  # int64: the true token where it was masked, IGNORED_LABEL elsewhere
    text_lengths_B: "torch.Tensor"  # int64: tokens of each caption, 0 where there is none
    prompt_lengths_B: "torch.Tensor"  # int64: tokens that each text begins with and that captioning does not ask for
    prefix_lengths_B: "torch.Tensor"  # int64: tokens at the beginning that see each other also in causal rows
    has_image_B: "torch.Tensor"  # bool
    has_text_B: "torch.Tensor"  # bool
    image_ids_B: "torch.Tensor"  # int64: equal for equal images
    caption_ids_B: "torch.Tensor"  # int64: equal for equal captions
    draws_B2: "torch.Tensor"  # float64 in [0, 1): picks the negative image and the negative text
    places_B: "torch.Tensor"  # int64: place in the order of the epochs, counted from the run's start
    answer_ids_BK: "torch.Tensor"  # int64: numbers in task.answers of those that are right to some degree, else -1
    answer_scores_BK: "torch.Tensor"  # float32 in [0, 1]: how right each is

    def to(self, device: "torch.device") -> "Batch":
        """The same batch on `device`."""
        return Batch(**{part.name: getattr(self, part.name).to(device, non_blocking=True) for part in fields(self)})


class Features(TypedDict, total=False):
    """What the model found of a micro-batch, as far as it was asked. A plain dict, which ZeRO-3's hooks can follow."""

    image_BE: "torch.Tensor"  # float32, unit length
    text_BE: "torch.Tensor"  # float32, unit length
    temperature: "torch.Tensor"  # float32 [1]
    has_negative_B: "torch.Tensor"  # bool: the sample had a legal hard negative
    match_logits: dict[str, "torch.Tensor"]  # kind of row -> [B, 2]: apart, together
    token_logits: dict[str, "torch.Tensor"]  # kind of row -> [N, V / tp]
    token_labels: dict[str, "torch.Tensor"]  # kind of row -> int64 [N]
    answer_logits_BA: "torch.Tensor"  # float32


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step did; losses are means over the whole global batch."""

    losses: dict[str, float]  # loss, loss_mlm, loss_itc, loss_itm, loss_lm
    grad_norm: float  # before clipping
    learning_rate: float
    temperature: float
    num_samples: int  # places of the global batch, empty ones too
    num_tokens: int  # text and image tokens that entered the towers
    flops: float  # floating-point operations of the model over all ranks, forward and backward, recomputation left out
    is_skipped: bool = False  # a gradient or loss was no finite number: nothing moved, grad_norm is NaN
    bad_places: tuple[int, ...] = ()  # of a skipped step: samples of the micro-batches whose loss is no finite number
    signal: int = 0  # number of a signal that asks the run to end, received by any rank; 0: none


@dataclass(frozen=True)
class Shown:
    """What was said about one held-out sample, beside the truth, for the eye."""

    sample: int  # number of the held-out sample
    truth: str  # a caption, or a question with its answer
    said: str
    is_right: bool | None  # None where nobody can tell


@dataclass(frozen=True)
class EvalReport:
    """What an evaluation found; shares are fractions of 1."""

    scores: dict[str, dict[str, float]]  # by the evaluation's name, each with num_pairs
    retrieved: tuple[int, ...]  # for each of the first held-out images, the held-out caption nearest to it
    # By the evaluation's name: what was answered, row by row as the public servers take it.
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    shown: tuple[Shown, ...] = ()  # of the first held-out images
