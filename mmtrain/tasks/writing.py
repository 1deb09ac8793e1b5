"""Texts written by a model in training, in the layout in which it trains.

Each token is one whole pass through all stages, image and beginning anew: nothing is kept from token to token, so
that the passes of training serve. A text of n tokens in K beams costs n x K forward passes; the twin, on one process,
needs a small part of that.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

import torch

from mmtrain.config.schema import RunConfig
from mmtrain.data.slot import LENGTH_STEP
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.engine.build import Place, trims_texts
from mmtrain.engine.passes import Passes
from mmtrain.model.rows import Layout
from mmtrain.parallel.collectives import sum_floats, told_by_last, whole_logits
from mmtrain.records import IGNORED_LABEL, Batch, Features
from mmtrain.tasks.beams import BeamSearch

CAUSAL = Layout.of({"causal"})
Tokens = tuple[int, ...]


class Writer:
    """Writes behind the prompt of every text of a batch; every rank must call it."""

    def __init__(self, plan: RunConfig, place: Place, num_pieces: int) -> None:
        self.plan, self.place, self.num_pieces = plan, place, num_pieces

    def write(self, passes: Passes, batches: Iterable[Batch]) -> Iterator[list[Tokens]]:
        """What is written for each sample of each batch, without prompt and [SEP]; on the last stage, else empty."""
        remaining = iter(batches)
        # As many batches at a time as there are stages, so that none idles.
        while some := list(islice(remaining, self.plan.parallel.pp)):
            searches = [self._search(batch) for batch in some]
            while self._any_open(searches):
                asked = [self._asked(batch, search) for batch, search in zip(some, searches, strict=True)]
                found = [features for _, features in passes.infer(asked, CAUSAL)]
                for search, features in zip(searches, found, strict=True):
                    self._advance(search, features)
            for search in searches:
                yield [text.best for text in search.texts] if passes.sees_features else []

    def _search(self, batch: Batch) -> BeamSearch:
        lengths = batch.prompt_lengths_B.tolist()
        # Also where a sample has no text of its own, what is written begins with [CLS].
        prompts = [
            [Tokenizer.cls_id, *ids[1:length]] for ids, length in zip(batch.text_ids_BT.tolist(), lengths, strict=True)
        ]
        return BeamSearch(self.plan.task, prompts, self.plan.model.max_text_length, self.num_pieces)

    def _any_open(self, searches: list[BeamSearch]) -> bool:
        """Whether any data-parallel rank goes on: all must make the same passes."""
        num_open = sum(search.is_open for search in searches)
        return sum_floats([float(num_open)], self.place.groups.data, self.place.device)[0] > 0

    def _asked(self, batch: Batch, search: BeamSearch) -> Batch:
        """One row for each beam, in which only the next token is asked for."""
        most = self.plan.model.max_text_length
        rows = [tokens[: most - 1] for tokens in search.beginnings]  # one that ended at the very end asks for nothing
        lengths = torch.tensor([len(tokens) for tokens in rows])
        width = min(-(-int(lengths.max() + 1) // LENGTH_STEP) * LENGTH_STEP, most) if trims_texts(self.plan) else most
        text_ids = torch.tensor([[*tokens, *[Tokenizer.pad_id] * (width - len(tokens))] for tokens in rows])
        of_row = torch.arange(len(batch.places_B)).repeat_interleave(self.plan.task.num_beams)
        return replace(
            batch,
            images_BCHW=batch.images_BCHW[of_row],
            text_ids_BT=text_ids,
            masked_ids_BT=text_ids,
            masked_labels_BT=torch.full_like(text_ids, IGNORED_LABEL),
            # The place behind the beginning counts as a token, which nothing looks at: what is asked for is its label.
            text_lengths_B=lengths + 1,
            prompt_lengths_B=lengths,
            **{
                name: getattr(batch, name)[of_row]
                for name in ("has_image_B", "has_text_B", "image_ids_B", "caption_ids_B", "draws_B2", "places_B")
            },
        )

    def _advance(self, search: BeamSearch, features: Features | None) -> None:
        """The last stage chooses, and tells the others how the texts go on."""
        if features is not None:
            logits_RV = whole_logits(features["token_logits"]["causal"], self.place.groups.tensor)
            if search.is_open:
                search.advance(logits_RV)
        told = told_by_last([(text.running, text.is_open) for text in search.texts], self.place.groups.pipe)
        for text, (running, is_open) in zip(search.texts, told, strict=True):
            text.running, text.is_open = running, is_open
