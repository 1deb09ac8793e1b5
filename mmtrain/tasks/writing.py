"""Texts written by a model in training, in the layout in which it trains.

Each token is one whole pass through all stages, image and beginning anew: nothing is kept from token to token, so
that the passes of training serve. A text of n tokens in K beams costs n x K forward passes; the twin, on one process,
needs a small part of that.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from mmtrain.config.schema import RunConfig
from mmtrain.engine.build import Place
from mmtrain.engine.passes import Passes
from mmtrain.parallel.collectives import sum_floats, told_by_last, whole_logits
from mmtrain.records import Batch, Features
from mmtrain.tasks.beams import BeamSearch, Marks
from mmtrain.tasks.texts import CAUSAL, Tokens, prompts_of, with_texts


class Writer:
    """Writes behind the prompt of every text of a batch; every rank must call it."""

    def __init__(self, plan: RunConfig, place: Place, marks: Marks) -> None:
        self.plan, self.place, self.marks = plan, place, marks

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
                yield search.found if passes.sees_features else []

    def _search(self, batch: Batch) -> BeamSearch:
        prompts = prompts_of(batch, self.marks.cls_id)
        seeds = [f"{self.plan.seed}/{place}" for place in batch.places_B.tolist()]
        return BeamSearch(self.plan.task, prompts, self.plan.model.max_text_length, self.marks, seeds)

    def _any_open(self, searches: list[BeamSearch]) -> bool:
        """Whether any data-parallel rank goes on: all must make the same passes."""
        num_open = sum(search.is_open for search in searches)
        return sum_floats([float(num_open)], self.place.groups.data, self.place.device)[0] > 0

    def _asked(self, batch: Batch, search: BeamSearch) -> Batch:
        """One row for each beam, in which only the next token is asked for."""
        most = self.plan.model.max_text_length
        rows = [tokens[: most - 1] for tokens in search.beginnings]  # one that ended at the very end asks for nothing
        # The place behind the beginning counts as a token, which nothing looks at: what is asked for is its label.
        texts = [(*tokens, self.marks.pad_id) for tokens in rows]
        return with_texts(batch, self.plan, texts, [len(tokens) for tokens in rows], pad_id=self.marks.pad_id)

    def _advance(self, search: BeamSearch, features: Features | None) -> None:
        """The last stage chooses, and tells the others how the texts go on."""
        if features is not None:
            logits_RV = whole_logits(features["token_logits"]["causal"], self.place.groups.tensor)
            if search.is_open:
                search.advance(logits_RV)
        told = told_by_last([(text.running, text.is_open) for text in search.texts], self.place.groups.pipe)
        for text, (running, is_open) in zip(search.texts, told, strict=True):
            text.running, text.is_open = running, is_open
