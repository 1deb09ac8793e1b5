"""A batch with other texts: beginnings that are to be written on, or answers whose likelihood is asked for."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from mmtrain.config.schema import RunConfig
from mmtrain.data.slot import LENGTH_STEP
from mmtrain.engine.build import trims_texts
from mmtrain.model.rows import Layout
from mmtrain.records import IGNORED_LABEL, Batch

CAUSAL = Layout.of({"causal"})
Tokens = tuple[int, ...]


def prompts_of(batch: Batch, cls_id: int) -> list[Tokens]:
    """What each text begins with; [CLS] also where a sample has no text of its own."""
    lengths = batch.prompt_lengths_B.tolist()
    rows = zip(batch.text_ids_BT.tolist(), lengths, strict=True)
    return [(cls_id, *ids[1:length]) for ids, length in rows]


def with_texts(
    batch: Batch, plan: RunConfig, texts: Sequence[Tokens], prompt_lengths: Sequence[int], *, pad_id: int
) -> Batch:
    """As many rows for each sample, one after another, as there are texts for it; what follows its prompt is asked."""
    most, num_each = plan.model.max_text_length, len(texts) // len(batch.places_B)
    lengths = torch.tensor([len(tokens) for tokens in texts])
    width = min(-(-int(lengths.max()) // LENGTH_STEP) * LENGTH_STEP, most) if trims_texts(plan) else most
    text_ids = torch.tensor([[*tokens, *[pad_id] * (width - len(tokens))] for tokens in texts])
    of_row = torch.arange(len(batch.places_B)).repeat_interleave(num_each)
    names = ("prefix_lengths_B", "has_image_B", "has_text_B", "image_ids_B", "caption_ids_B", "draws_B2", "places_B")
    return replace(
        batch,
        images_BCHW=batch.images_BCHW[of_row],
        text_ids_BT=text_ids,
        masked_ids_BT=text_ids,
        masked_labels_BT=torch.full_like(text_ids, IGNORED_LABEL),
        text_lengths_B=lengths,
        prompt_lengths_B=torch.tensor(prompt_lengths),
        **{name: getattr(batch, name)[of_row] for name in (*names, "answer_ids_BK", "answer_scores_BK")},
    )
