"""Retrieval in two stages: features name a shortlist for each query, the match head puts it in order.

Axes: N held-out pairs, I images, T captions, Q queries, K candidates of a query.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from mmtrain.config.schema import RunConfig
from mmtrain.data.heldout import HeldOut
from mmtrain.engine.build import Place, build_evaluation, trims_texts
from mmtrain.engine.contract import Scorer
from mmtrain.engine.evaluation import RECALLS_AT, TRUE_OR_TWIN, Gallery, match_margin, ranks_of_own
from mmtrain.engine.passes import Passes
from mmtrain.model.rows import Layout
from mmtrain.parallel.collectives import gather_rows, told_by_last
from mmtrain.records import Batch, EvalReport
from mmtrain.scores.retrieval import chance_recall_at, rank_in_shortlist, recall_at

NAME = "reranked"
CLEAN = Layout.of({"clean"})
Pair = tuple[int, int]  # number of the image, number of the text


class Retrieval:
    """Contrast and matching are learned; held-out images find their texts, and texts their images."""

    name = "retrieval"

    def scorer(self, plan: RunConfig, place: Place, heldout: HeldOut) -> Scorer:
        return RetrievalScorer(plan, place, heldout)


@dataclass(frozen=True)
class Shortlist:
    """The candidates of one query, nearest first."""

    pairs: tuple[Pair, ...]
    own: tuple[int, ...]  # places in it of the right ones; none where features alone rank them behind its end
    num_own: int  # right ones among all candidates

    def rank(self, beliefs: Mapping[Pair, float], num_candidates: int) -> int:
        """The rank of the best right one by belief; that of the last candidate where none is in the list."""
        return rank_in_shortlist([beliefs[pair] for pair in self.pairs], self.own) if self.own else num_candidates


@dataclass
class Shortlists:
    """Those of every query, by direction."""

    counts: dict[str, float] = field(default_factory=dict)
    lists: dict[str, list[Shortlist]] = field(default_factory=dict)
    num_candidates: dict[str, int] = field(default_factory=dict)
    nearness: dict[Pair, float] = field(default_factory=dict)

    def add(
        self,
        name: str,
        similar_QK: torch.Tensor,
        is_own_QK: torch.Tensor,
        length: int,
        pair_of: Callable[[int, int], Pair],
    ) -> None:
        """Shortlist `length` keys for each query by similarity; a tie at its end counts as lost, as everywhere."""
        near = similar_QK.topk(min(length, similar_QK.shape[1]), dim=1)
        is_in_Q = (ranks_of_own(similar_QK, is_own_QK) <= near.indices.shape[1]).tolist()
        own_QK, num_own_Q = is_own_QK.gather(1, near.indices).tolist(), is_own_QK.sum(dim=1).tolist()
        self.num_candidates[name], self.lists[name] = similar_QK.shape[1], []
        for query, keys in enumerate(near.indices.tolist()):
            pairs = tuple(pair_of(query, key) for key in keys)
            own = tuple(place for place, is_own in enumerate(own_QK[query]) if is_own and is_in_Q[query])
            self.lists[name].append(Shortlist(pairs, own, num_own_Q[query]))
            self.nearness |= zip(pairs, near.values[query].tolist(), strict=True)


class RetrievalScorer:
    """Recall by features alone among all pairs, and after the match head has ordered the first `task.shortlist`.

    Every image is a candidate once, by its image_id, and any of its own captions is right (the protocol of COCO and
    Flickr30k); captions of one image do not compete with each other.

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
        found = told_by_last(self._shortlists(passes), self.place.groups.pipe)
        pairs = sorted(found.nearness)
        margins = told_by_last(self._margins(passes, pairs), self.place.groups.pipe)
        beliefs = {pair: margins[pair] + found.nearness[pair] for pair in pairs}
        scores: dict[str, float] = {}
        for name, lists in found.lists.items():
            num_candidates = found.num_candidates[name]
            ranks = [one.rank(beliefs, num_candidates) for one in lists]
            for k in (k for k in RECALLS_AT if k <= min(self.plan.task.shortlist, num_candidates)):
                scores[f"{name}_recall_at_{k}"] = recall_at(ranks, k)
                chances = [chance_recall_at(k, one.num_own, num_candidates) for one in lists]
                scores[f"chance_{name}_recall_at_{k}"] = statistics.mean(chances)
        num_shortlisted = min(self.plan.task.shortlist, found.num_candidates["image_to_text"])
        scores |= {"num_shortlisted": num_shortlisted, "num_pairs_matched": len(pairs), **found.counts}
        return replace(report, scores=report.scores | {NAME: scores})

    def _shortlists(self, passes: Passes) -> "Shortlists":
        """The nearest candidates of every image and of every caption, and how near; on the last stage, else none.

        Nearness is similarity over temperature.
        """
        groups, kept = self.place.groups, {"image": [], "text": [], "pair": [], "image_id": [], "caption_id": []}
        for batch, features in passes.infer(self._batches(), CLEAN):
            if features is not None:
                kept["image"].append(gather_rows(features["image_BE"], groups.data))
                kept["text"].append(gather_rows(features["text_BE"], groups.data))
                kept["pair"].append(gather_rows(batch.has_image_B & batch.has_text_B, groups.data))
                kept["image_id"].append(gather_rows(batch.image_ids_B, groups.data))
                kept["caption_id"].append(gather_rows(batch.caption_ids_B, groups.data))
                temperature = features["temperature"]
        if not passes.sees_features:
            return Shortlists()
        image_NE, text_NE, pair_N, *ids = (torch.cat(parts)[: len(self.heldout)] for parts in kept.values())
        gallery = Gallery.of(*ids, pair_N)
        similar_IT = image_NE[gallery.images_I] @ text_NE[gallery.texts_T].t() / temperature
        is_own_IT = gallery.own_texts(torch.arange(len(gallery.images_I), device=similar_IT.device))
        images, texts = gallery.images_I.tolist(), gallery.texts_T.tolist()
        found = Shortlists(counts={"num_pairs": len(texts), **gallery.counts})
        found.add("image_to_text", similar_IT, is_own_IT, self.plan.task.shortlist, lambda i, t: (images[i], texts[t]))
        found.add(
            "text_to_image", similar_IT.t(), is_own_IT.t(), self.plan.task.shortlist, lambda t, i: (images[i], texts[t])
        )
        return found

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
