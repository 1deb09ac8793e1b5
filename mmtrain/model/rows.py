"""Which rows the stacks run: each objective asks for some, each stack runs once, each objective reads its own back.

Axes: B samples, T text positions, Y rows of the text stack, R rows of the fusion stack, E shared embedding, G pools of
P samples, N picked tokens.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch

from mmtrain.records import IGNORED_LABEL, Batch

TEXT_KINDS = ("clean", "masked", "causal")
FUSION_KINDS = ("positive", "masked", "causal", "negative_image", "negative_text")


@dataclass(frozen=True)
class Layout:
    """The kinds of rows of a run, in the order in which they are stacked; B rows of each kind."""

    text: tuple[str, ...]
    fusion: tuple[str, ...]

    @classmethod
    def of(cls, asked: Iterable[str]) -> "Layout":
        """The kinds that any of `asked` names, each once."""
        kinds = set(asked)
        unknown = kinds - {*TEXT_KINDS, *FUSION_KINDS}
        if unknown:
            raise RuntimeError(f"no such rows: {sorted(unknown)}")
        return cls(
            text=tuple(kind for kind in TEXT_KINDS if kind in kinds),
            fusion=tuple(kind for kind in FUSION_KINDS if kind in kinds),
        )

    @property
    def has_negatives(self) -> bool:
        """Whether hard negatives are to be drawn."""
        return "negative_image" in self.fusion


@dataclass(frozen=True)
class Picks:
    """The token positions of one kind of rows whose next or true token a loss reads."""

    row_N: torch.Tensor  # int64: which sample
    position_N: torch.Tensor  # int64: which position
    labels_N: torch.Tensor  # int64; IGNORED_LABEL on the one stand-in of an empty pick


@dataclass(frozen=True)
class Rows:
    """Everything the model reads of a micro-batch."""

    layout: Layout
    images_BCHW: torch.Tensor
    text_ids_YT: torch.Tensor
    text_mask_Y1TT: torch.Tensor  # True where a position may look
    has_image_B: torch.Tensor
    has_pair_B: torch.Tensor
    image_ids_B: torch.Tensor
    caption_ids_B: torch.Tensor
    draws_B2: torch.Tensor
    last_B: torch.Tensor  # int64: position of each text's last token
    picks: dict[str, Picks]
    all_images: bool  # known on the host, so that no mask is built where none is needed

    def to(self, device: torch.device) -> "Rows":
        """The same rows on `device`."""
        return Rows(**{field.name: _moved(getattr(self, field.name), device) for field in fields(self)})


def _moved(value: object, device: torch.device) -> object:
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Picks):
        return Picks(**{field.name: _moved(getattr(value, field.name), device) for field in fields(value)})
    return {name: _moved(item, device) for name, item in value.items()} if isinstance(value, dict) else value


def plan_rows(batch: Batch, layout: Layout) -> Rows:
    """What the model runs for `batch`, decided on the host."""
    num_positions = batch.text_ids_BT.shape[1]
    # A sample without a text still has rows, which nobody reads; they look at their first position.
    lengths_B = batch.text_lengths_B.clamp_min(1)
    known_BT = torch.arange(num_positions) < lengths_B[:, None]
    both_ways_B1TT = known_BT[:, None, None, :].expand(-1, 1, num_positions, -1)
    # In causal rows a question is read both ways, and its answer looks back (Dong et al. 2019).
    prefix_BT = torch.arange(num_positions) < batch.prefix_lengths_B[:, None]
    past_TT = torch.ones(num_positions, num_positions, dtype=torch.bool).tril()
    past_B1TT = past_TT | (prefix_BT[:, None, :, None] & prefix_BT[:, None, None, :])
    ids = {"clean": batch.text_ids_BT, "masked": batch.masked_ids_BT, "causal": batch.text_ids_BT}
    masks = {"clean": both_ways_B1TT, "masked": both_ways_B1TT, "causal": both_ways_B1TT & past_B1TT}
    picks = {"masked": pick_masked, "causal": pick_next}
    return Rows(
        layout=layout,
        images_BCHW=batch.images_BCHW,
        text_ids_YT=torch.cat([ids[kind] for kind in layout.text]),
        text_mask_Y1TT=torch.cat([masks[kind] for kind in layout.text]),
        has_image_B=batch.has_image_B,
        has_pair_B=batch.has_image_B & batch.has_text_B,
        image_ids_B=batch.image_ids_B,
        caption_ids_B=batch.caption_ids_B,
        draws_B2=batch.draws_B2,
        last_B=lengths_B - 1,
        picks={kind: pick(batch) for kind, pick in picks.items() if kind in layout.fusion},
        all_images=bool(batch.has_image_B.all()),
    )


def _picked(labels_BT: torch.Tensor) -> Picks:
    row_N, position_N = (labels_BT != IGNORED_LABEL).nonzero(as_tuple=True)
    if row_N.numel() == 0:
        # Every rank must run the head, or a sharded one waits for the others: one position stands in, with no label.
        row_N = position_N = torch.zeros(1, dtype=torch.int64)
    return Picks(row_N, position_N, labels_BT[row_N, position_N])


def pick_masked(batch: Batch) -> Picks:
    """The masked positions and their true tokens."""
    return _picked(batch.masked_labels_BT)


def pick_next(batch: Batch) -> Picks:
    """Every position whose next token is to be written, and that token."""
    return _picked(next_labels(batch))


def next_labels(batch: Batch) -> torch.Tensor:
    """[B, T]: at each position the token that follows it; IGNORED_LABEL in the prompt and from the last token on."""
    following_BT = torch.full_like(batch.text_ids_BT, IGNORED_LABEL)
    following_BT[:, :-1] = batch.text_ids_BT[:, 1:]
    place_T = torch.arange(following_BT.shape[1])
    is_asked_BT = (place_T < (batch.text_lengths_B - 1)[:, None]) & (place_T >= (batch.prompt_lengths_B - 1)[:, None])
    return following_BT.masked_fill_(~is_asked_BT, IGNORED_LABEL)


@dataclass(frozen=True)
class Negatives:
    """For each sample a hard negative image and text of its pool; where none is legal, the sample itself and False."""

    image_B: torch.Tensor
    text_B: torch.Tensor
    has_B: torch.Tensor


def draw_negatives(
    image_BE: torch.Tensor, text_BE: torch.Tensor, temperature: torch.Tensor, rows: Rows, pool_size: int
) -> Negatives:
    """Draw n(i) and m(i) inside each pool in proportion to exp(similarity / temperature) (Li et al. 2021, section 3.2).

    A candidate is legal if it is a whole pair with another image id and another caption id. A pure function of the
    features and of the draws that came with the samples, so every layout finds the same ones.
    """
    num_pools = rows.has_pair_B.shape[0] // pool_size
    image_GPE, text_GPE = (part.detach().float().unflatten(0, (num_pools, pool_size)) for part in (image_BE, text_BE))
    logits_GPP = image_GPE @ text_GPE.transpose(1, 2) / temperature.detach().float()
    legal_GPP = legal_partners(rows.image_ids_B, rows.caption_ids_B, rows.has_pair_B, pool_size)
    draws_2GP = rows.draws_B2.unflatten(0, (num_pools, pool_size)).permute(2, 0, 1)
    image_GP = _draw(logits_GPP.transpose(1, 2), legal_GPP, draws_2GP[0])  # a text's row, the images across
    text_GP = _draw(logits_GPP, legal_GPP, draws_2GP[1])
    first_of_pool_G1 = torch.arange(num_pools, device=image_BE.device)[:, None] * pool_size
    has_B = legal_GPP.any(dim=-1).flatten()
    own_B = torch.arange(has_B.shape[0], device=image_BE.device)
    return Negatives(
        image_B=torch.where(has_B, (image_GP + first_of_pool_G1).flatten(), own_B),
        text_B=torch.where(has_B, (text_GP + first_of_pool_G1).flatten(), own_B),
        has_B=has_B,
    )


def legal_partners(
    image_ids_B: torch.Tensor, caption_ids_B: torch.Tensor, pair_B: torch.Tensor, pool_size: int
) -> torch.Tensor:
    """[G, P, P]: which two samples of a pool may make a negative: whole pairs whose image and caption ids differ."""
    num_pools = pair_B.shape[0] // pool_size
    images_GP, captions_GP, pair_GP = (
        part.unflatten(0, (num_pools, pool_size)) for part in (image_ids_B, caption_ids_B, pair_B)
    )
    other_GPP = images_GP[:, :, None] != images_GP[:, None, :]
    other_GPP = other_GPP & (captions_GP[:, :, None] != captions_GP[:, None, :])
    return other_GPP & pair_GP[:, :, None] & pair_GP[:, None, :]


def _draw(logits_GPP: torch.Tensor, legal_GPP: torch.Tensor, draws_GP: torch.Tensor) -> torch.Tensor:
    """One candidate of each row, by where the draw falls among the summed probabilities."""
    logits_GPP = logits_GPP.double().masked_fill(~legal_GPP, -torch.inf)
    peak_GP1 = logits_GPP.amax(dim=-1, keepdim=True).clamp_min(-1e30)
    sums_GPP = (logits_GPP - peak_GP1).exp().cumsum(dim=-1)
    # A hair below 1, so that rounding cannot push the target past the last sum.
    target_GP1 = draws_GP[..., None] * (1 - 2.0**-40) * sums_GPP[..., -1:]
    # The first candidate whose sum exceeds the target; an illegal one adds nothing, so it is never first.
    found_GP1 = torch.searchsorted(sums_GPP.contiguous(), target_GP1.contiguous(), right=True)
    return found_GP1[..., 0].clamp_max(logits_GPP.shape[-1] - 1)


def count_read(batch: Batch, pool_size: int) -> dict[str, int]:
    """What the losses of `batch` are means over: pairs, matches, masked and next tokens, known from ids and texts."""
    pair_B = batch.has_image_B & batch.has_text_B
    num_negatives = int(legal_partners(batch.image_ids_B, batch.caption_ids_B, pair_B, pool_size).any(dim=-1).sum())
    num_pairs = int(pair_B.sum())
    return {
        "pairs": num_pairs,
        "matches": num_pairs + 2 * num_negatives,
        "masked_tokens": int((batch.masked_labels_BT != IGNORED_LABEL).sum()),
        "next_tokens": int((batch.text_lengths_B - batch.prompt_lengths_B).clamp_min(0).sum()),
    }
