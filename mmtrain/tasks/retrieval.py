"""Retrieval in two stages: features name a shortlist for each query, the match head puts it in order.

Axes: N held-out pairs, K candidates of a query, M pairs of an image and a text that the match head looks at.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from mmtrain.config.schema import RunConfig
from mmtrain.data.heldout import HeldOut
from mmtrain.engine.build import Place, build_evaluation, trims_texts
from mmtrain.engine.contract import Scorer
from mmtrain.engine.evaluation import RECALLS_AT, TRUE_OR_TWIN, match_margin
from mmtrain.engine.passes import Passes
from mmtrain.model.rows import Layout
from mmtrain.parallel.collectives import gather_rows, told_by_last
from mmtrain.records import Batch, EvalReport
from mmtrain.scores.retrieval import rank_in_shortlist, recall_at

NAME = "reranked"
CLEAN = Layout.of({"clean"})
Pair = tuple[int, int]  # number of the image, number of the text


class Retrieval:
    """Contrast and matching are learned; held-out images find their texts, and texts their images."""

    name = "retrieval"

    def scorer(self, plan: RunConfig, place: Place, heldout: HeldOut) -> Scorer:
        return RetrievalScorer(plan, place, heldout)


class RetrievalScorer:
    """Recall by features alone among all pairs, and after the match head has ordered the first `task.shortlist`.

    A pair's score is what the match head believes in it plus what the features do: similarity over temperature, as the
    contrast is trained (Li et al. 2022 add the bare similarity). The head alone forgets what the features know.

    The match head looks at each pair of the shortlists once: at most 2 N K passes of an image and a text through the
    whole model, shared out over the data-parallel ranks; how many there were stands among the scores.
    """

    def __init__(self, plan: RunConfig, place: Place, heldout: HeldOut) -> None:
        self.plan, self.place, self.heldout = plan, place, heldout
        self.plain = build_evaluation(plan, place, heldout)

    def run(self, passes: Passes) -> EvalReport:
        report = self.plain.run(passes)
        shortlists, nearness = told_by_last(self._shortlists(passes), self.place.groups.pipe)
        pairs = sorted(nearness)
        margins = told_by_last(self._margins(passes, pairs), self.place.groups.pipe)
        beliefs = {pair: margins[pair] + nearness[pair] for pair in pairs}
        scores: dict[str, float] = {}
        for name, lists in shortlists.items():
            ranks = [
                rank_in_shortlist([beliefs[pair] for pair in several], several.index((own, own)))
                if (own, own) in several
                else len(lists)  # not among the candidates: as if last
                for own, several in lists.items()
            ]
            counted = [k for k in RECALLS_AT if k <= self._length(lists)]
            scores |= {f"{name}_recall_at_{k}": recall_at(ranks, k) for k in counted}
            scores |= {f"chance_{name}_recall_at_{k}": k / len(lists) for k in counted}
        scores |= {"num_shortlisted": self._length(shortlists["image_to_text"]), "num_pairs_matched": len(pairs)}
        return replace(report, scores=report.scores | {NAME: scores | {"num_pairs": len(shortlists["image_to_text"])}})

    def _length(self, lists: dict[int, list[Pair]]) -> int:
        return min(self.plan.task.shortlist, len(lists))

    def _shortlists(self, passes: Passes) -> tuple[dict[str, dict[int, list[Pair]]], dict[Pair, float]]:
        """By direction and number of the query its nearest candidates, nearest first, and how near; on the last stage.

        Nearness is similarity over temperature.
        """
        groups, kept = self.place.groups, {"image": [], "text": [], "pair": []}
        for batch, features in passes.infer(self._batches(), CLEAN):
            if features is not None:
                kept["image"].append(gather_rows(features["image_BE"], groups.data))
                kept["text"].append(gather_rows(features["text_BE"], groups.data))
                kept["pair"].append(gather_rows(batch.has_image_B & batch.has_text_B, groups.data))
                temperature = features["temperature"]
        if not passes.sees_features:
            return {}, {}
        image_NE, text_NE, pair_N = (torch.cat(parts)[: len(self.heldout)] for parts in kept.values())
        numbers = pair_N.nonzero().flatten()
        similar_NN = image_NE[numbers] @ text_NE[numbers].t() / temperature
        k = min(self.plan.task.shortlist, len(numbers))
        texts, images, own = similar_NN.topk(k, dim=1), similar_NN.t().topk(k, dim=1), numbers.tolist()
        found = {
            "image_to_text": {own[i]: [(own[i], own[j]) for j in row] for i, row in enumerate(texts.indices.tolist())},
            "text_to_image": {own[j]: [(own[i], own[j]) for i in row] for j, row in enumerate(images.indices.tolist())},
        }
        nearness: dict[Pair, float] = {}
        for lists, near_NK in ((found["image_to_text"], texts.values), (found["text_to_image"], images.values)):
            for pairs, near in zip(lists.values(), near_NK.tolist(), strict=True):
                nearness |= zip(pairs, near, strict=True)
        return found, nearness

    def _batches(self) -> Iterator[Batch]:
        grid, coord = self.place.groups.grid, self.place.groups.coord
        size, trim = self.plan.train.micro_batch_size, trims_texts(self.plan)
        return self.heldout.batches(size, dp=grid.dp, dp_rank=coord.dp, trim=trim)

    def _margins(self, passes: Passes, pairs: Sequence[Pair]) -> dict[Pair, float]:
        """How much the match head believes in each pair; the data-parallel ranks share them out."""
        groups, found = self.place.groups, []
        batches = self.heldout.paired(
            pairs,
            self.plan.train.micro_batch_size,
            dp=groups.grid.dp,
            dp_rank=groups.coord.dp,
            trim=trims_texts(self.plan),
        )
        for _, features in passes.infer(batches, TRUE_OR_TWIN):
            if features is not None:
                found += gather_rows(match_margin(features), groups.data).tolist()
        return dict(zip(pairs, found, strict=False))
