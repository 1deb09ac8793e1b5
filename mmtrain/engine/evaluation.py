"""Held-out scores of a model in training, each rank doing its part of the pairs and of the ranking.

Axes: B pairs of this rank's batch, N pairs of the split, E shared embedding, Q queries of this rank.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
QUERIES_AT_ONCE = 4096  # whose similarities to all keys are held in memory
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
            ids = [self._whole_split(found.kept[name]) for name in ("image_id", "caption_id")]
            scores = self._retrieval_scores(image_NE, text_NE, Gallery.of(*ids, pair_N)) | scores
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
        found.kept["image_id"].append(batch.image_ids_B)
        found.kept["caption_id"].append(batch.caption_ids_B)
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

    def _retrieval_scores(self, image_NE: torch.Tensor, text_NE: torch.Tensor, gallery: "Gallery") -> dict[str, float]:
        """Recall by the protocol of COCO and Flickr30k: every image once, and any caption of its own is right."""
        image_IE, text_TE = image_NE[gallery.images_I], text_NE[gallery.texts_T]
        ranks = {
            "image_to_text": self._ranks(image_IE, text_TE, gallery.own_texts),
            "text_to_image": self._ranks(text_TE, image_IE, gallery.own_images),
        }
        scores = {f"{name}_recall_at_{k}": recall_at(own, k) for name, own in ranks.items() for k in RECALLS_AT}
        return scores | gallery.counts

    def _ranks(
        self, query_QE: torch.Tensor, key_KE: torch.Tensor, own_of: Callable[[torch.Tensor], torch.Tensor]
    ) -> list[int]:
        """The rank of each query's best own key; the data-parallel ranks share out the queries.

        `own_of` some queries says which keys [Q, K] are their own.
        """
        num_queries, dp = query_QE.shape[0], self.groups.grid.dp
        per_rank = -(-num_queries // dp)
        own_Q = torch.arange(per_rank, device=self.device) + self.groups.coord.dp * per_rank
        own_Q = own_Q.clamp_max(num_queries - 1)  # the last rank's tail repeats the last query and is cut off again
        found = [ranks_of_own(query_QE[some_Q] @ key_KE.t(), own_of(some_Q)) for some_Q in own_Q.split(QUERIES_AT_ONCE)]
        return gather_rows(torch.cat(found), self.groups.data)[:num_queries].tolist()

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


@dataclass(frozen=True)
class Gallery:
    """What is retrieved of a split: every image once, by its image_id, and every caption. I images, T captions.

    A caption that several images have, word for word, is right for each of them: nobody could tell which was meant.
    """

    images_I: torch.Tensor  # int64: number of the first held-out sample of each image
    texts_T: torch.Tensor  # int64: number of the held-out sample of each caption
    wording_of_T: torch.Tensor  # int64: which of the W different wordings each caption is
    has_wording_IW: torch.Tensor  # bool: whether an image has a caption of that wording

    @classmethod
    def of(cls, image_ids_N: torch.Tensor, caption_ids_N: torch.Tensor, pair_N: torch.Tensor) -> "Gallery":
        """Of the samples of a split that have an image and a text, in order."""
        texts_T = pair_N.nonzero().flatten()
        texts, ids = texts_T.tolist(), image_ids_N.tolist()
        first: dict[int, int] = {}
        for number in texts:
            first.setdefault(ids[number], number)
        place = {image_id: place for place, image_id in enumerate(first)}
        images_I, image_of_T = (
            torch.tensor(column, dtype=torch.int64, device=pair_N.device)
            for column in (list(first.values()), [place[ids[number]] for number in texts])
        )
        wordings, wording_of_T = caption_ids_N[texts_T].unique(return_inverse=True)
        has_wording_IW = torch.zeros(len(images_I), len(wordings), dtype=torch.bool, device=pair_N.device)
        has_wording_IW[image_of_T, wording_of_T] = True
        return cls(images_I, texts_T, wording_of_T, has_wording_IW)

    def own_texts(self, images_Q: torch.Tensor) -> torch.Tensor:
        """Which captions [Q, T] are right for some of the I images."""
        return self.has_wording_IW[images_Q][:, self.wording_of_T]

    def own_images(self, texts_Q: torch.Tensor) -> torch.Tensor:
        """Which images [Q, I] are right for some of the T captions."""
        return self.has_wording_IW[:, self.wording_of_T[texts_Q]].t()

    @property
    def counts(self) -> dict[str, float]:
        """How many images and captions there are, where several captions share an image; else num_pairs says it."""
        if len(self.images_I) == len(self.texts_T):
            return {}
        return {"num_images": len(self.images_I), "num_captions": len(self.texts_T)}


def ranks_of_own(similar_QK: torch.Tensor, is_own_QK: torch.Tensor) -> torch.Tensor:
    """The rank [Q] of each query's best own key, from 1; own keys do not compete with each other.

    A tie counts as lost: a model that gives everything the same features knows nothing. So does what is no number.
    """
    best_Q = similar_QK.masked_fill(~is_own_QK, -torch.inf).amax(dim=1)
    return 1 + (~(similar_QK < best_Q[:, None]) & ~is_own_QK).sum(dim=1)


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
