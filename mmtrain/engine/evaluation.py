"""Held-out scores of a model in training, each rank doing its part of the pairs and of the ranking.

Axes: B pairs of this rank's batch, N pairs of the split, E shared embedding, Q queries of this rank.
"""

from collections import defaultdict
from collections.abc import Iterator

import torch

from mmtrain.data.heldout import HeldOut
from mmtrain.engine.passes import Passes
from mmtrain.model.rows import Layout
from mmtrain.objectives.itm import APART, TOGETHER
from mmtrain.parallel.collectives import gather_rows, sum_floats, token_losses, told_by_last, top_tokens
from mmtrain.parallel.groups import Groups
from mmtrain.records import IGNORED_LABEL, Batch, EvalReport, Features
from mmtrain.scores.retrieval import perplexity, recall_at

RECALLS_AT = (1, 5, 10)
TRUE_OR_TWIN = Layout.of({"clean", "positive"})


class Evaluation:
    """The held-out split and how it is scored; `layout` are the rows that the run trains, and only they are scored.

    `trim` lets texts end before the greatest length, where neither pipeline stages nor shared tokens want them equal.
    """

    def __init__(
        self,
        heldout: HeldOut,
        layout: Layout,
        groups: Groups,
        device: torch.device,
        batch_size: int,
        num_pictures: int,
        *,
        trim: bool = False,
    ) -> None:
        self.heldout, self.layout, self.groups, self.device = heldout, layout, groups, device
        self.batch_size, self.num_pictures, self.trim = batch_size, num_pictures, trim

    def run(self, passes: Passes) -> EvalReport:
        """Every score, the same on every rank; the last pipeline stage reads them off and tells the others."""
        return told_by_last(self._scored(passes), self.groups.pipe)

    def _scored(self, passes: Passes) -> EvalReport | None:
        found = _Found()
        for batch, features in passes.infer(self._batches(twins=False), self.layout):
            if features is not None:
                self._read(features, batch, found)
        scores_twins = "positive" in self.layout.fusion and any(self.heldout.twins)
        twins = list(self._twin_features(passes)) if scores_twins else []
        return self._report(found, twins) if passes.sees_features else None

    def _report(self, found: "_Found", twins: list[tuple[torch.Tensor, torch.Tensor]]) -> EvalReport:
        image_NE, text_NE, pair_N = (self._whole_split(found.kept[name]) for name in ("image", "text", "pair"))
        scores = {**self._token_scores(found.sums), "num_pairs": int(pair_N.sum())}
        retrieved: tuple[int, ...] = ()
        if "clean" in self.layout.text:
            scores = self._retrieval_scores(image_NE, text_NE, pair_N) | scores
            retrieved = tuple(self._best_texts(image_NE[: self.num_pictures], text_NE, pair_N))
        named = {"heldout": scores}
        if twins and (of_twins := self._twin_scores(found, twins)):
            named["twins"] = of_twins
        return EvalReport(scores=named, retrieved=retrieved)

    def _batches(self, twins: bool) -> Iterator[Batch]:
        grid, coord = self.groups.grid, self.groups.coord
        return self.heldout.batches(self.batch_size, dp=grid.dp, dp_rank=coord.dp, twins=twins, trim=self.trim)

    def _whole_split(self, parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([gather_rows(part, self.groups.data) for part in parts])[: len(self.heldout)]

    def _read(self, features: Features, batch: Batch, found: "_Found") -> None:
        pair_B = batch.has_image_B & batch.has_text_B
        found.kept["pair"].append(pair_B)
        found.kept["image"].append(features.get("image_BE", pair_B[:, None].float()))
        found.kept["text"].append(features.get("text_BE", pair_B[:, None].float()))
        if "match_logits" in features:
            counted = {"positive": (TOGETHER, pair_B)}
            counted |= dict.fromkeys(("negative_image", "negative_text"), (APART, features["has_negative_B"]))
            for kind, (truth, counted_B) in counted.items():
                right_B = features["match_logits"][kind].argmax(dim=-1) == truth
                found.count("match", right_B, counted_B)
            found.kept["margin"].append(match_margin(features))
        for kind, logits_NV in features.get("token_logits", {}).items():
            labels_N = features["token_labels"][kind]
            read_N = labels_N != IGNORED_LABEL
            found.count(kind, top_tokens(logits_NV, self.groups.tensor) == labels_N, read_N)
            found.sums[f"{kind}_loss"] += float(token_losses(logits_NV, labels_N).double().sum())

    def _token_scores(self, sums: dict[str, float]) -> dict[str, float]:
        names = ("match", "match_right", "masked", "masked_right", "causal", "causal_loss")
        match, match_right, masked, masked_right, causal, causal_loss = sum_floats(
            [sums[name] for name in names], self.groups.data, self.device
        )
        offered = {
            "itm_accuracy": match_right / match if match else None,
            "masked_token_accuracy": masked_right / masked if masked else None,
            "lm_perplexity": perplexity(causal_loss, causal) if causal else None,
        }
        return {name: score for name, score in offered.items() if score is not None}

    def _retrieval_scores(
        self, image_NE: torch.Tensor, text_NE: torch.Tensor, pair_N: torch.Tensor
    ) -> dict[str, float]:
        both_ways = {"image_to_text": (image_NE, text_NE), "text_to_image": (text_NE, image_NE)}
        scores = {}
        for name, (query_NE, key_NE) in both_ways.items():
            ranks = self._ranks(query_NE[pair_N], key_NE[pair_N])
            scores |= {f"{name}_recall_at_{k}": recall_at(ranks, k) for k in RECALLS_AT}
        return scores

    def _ranks(self, query_NE: torch.Tensor, key_NE: torch.Tensor) -> list[int]:
        """The rank of each query's own key; the data-parallel ranks share out the queries. A tie counts as lost."""
        num_queries, dp = query_NE.shape[0], self.groups.grid.dp
        per_rank = -(-num_queries // dp)
        own_Q = torch.arange(per_rank, device=self.device) + self.groups.coord.dp * per_rank
        own_Q = own_Q.clamp_max(num_queries - 1)  # the last rank's tail repeats the last query and is cut off again
        similar_QN = query_NE[own_Q] @ key_NE.t()
        rank_Q = (similar_QN >= similar_QN.gather(1, own_Q[:, None])).sum(dim=1)
        return gather_rows(rank_Q, self.groups.data)[:num_queries].tolist()

    @staticmethod
    def _best_texts(image_QE: torch.Tensor, text_NE: torch.Tensor, pair_N: torch.Tensor) -> list[int]:
        return (image_QE @ text_NE.t()).masked_fill(~pair_N, -torch.inf).argmax(dim=1).tolist()

    def _twin_features(self, passes: Passes) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Of each batch of twins: how much the match head believes in them [B], and their text features [B, E]."""
        for _, features in passes.infer(self._batches(twins=True), TRUE_OR_TWIN):
            if features is not None:
                yield match_margin(features), features["text_BE"]

    def _twin_scores(self, found: "_Found", twins: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
        """How often the true caption beats its twin, by the match head and by the shared space, in all and by kind."""
        margins, twin_texts = (list(column) for column in zip(*twins, strict=True))
        itm_N = self._whole_split(found.kept["margin"]) > self._whole_split(margins)
        image_NE, text_NE = self._whole_split(found.kept["image"]), self._whole_split(found.kept["text"])
        itc_N = (image_NE * text_NE).sum(dim=-1) > (image_NE * self._whole_split(twin_texts)).sum(dim=-1)
        pair_N = self._whole_split(found.kept["pair"]).tolist()
        kinds = [twin.kind if twin and whole else None for twin, whole in zip(self.heldout.twins, pair_N, strict=True)]
        scores: dict[str, float] = {"num_pairs": sum(kind is not None for kind in kinds)}
        if not scores["num_pairs"]:  # every sample with a twin has an image that cannot be read
            return {}
        for name, won_N in (("itm_accuracy", itm_N.tolist()), ("itc_accuracy", itc_N.tolist())):
            by_kind = defaultdict(list)
            for kind, won in zip(kinds, won_N, strict=True):
                if kind is not None:
                    by_kind[kind].append(won)
            every = [won for kind in by_kind.values() for won in kind]
            scores[name] = sum(every) / len(every)
            scores |= {f"{name}_{kind}": sum(won) / len(won) for kind, won in sorted(by_kind.items())}
        return scores


class _Found:
    """What this rank's batches gave so far."""

    def __init__(self) -> None:
        self.kept: dict[str, list[torch.Tensor]] = defaultdict(list)
        self.sums: dict[str, float] = defaultdict(float)

    def count(self, name: str, right: torch.Tensor, counted: torch.Tensor) -> None:
        """Add how many were counted, and how many of them were right."""
        self.sums[name] += float(counted.sum())
        self.sums[f"{name}_right"] += float((right & counted).sum())


def match_margin(features: Features) -> torch.Tensor:
    """[B]: how much more the match head believes in a pair than not."""
    logits_B2 = features["match_logits"]["positive"]
    return logits_B2[:, TOGETHER] - logits_B2[:, APART]
