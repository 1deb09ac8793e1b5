"""Recall after re-ranking, against a plain count over a model whose answers are written down."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mmtrain.model.rows import Layout
from mmtrain.objectives.itm import TOGETHER
from mmtrain.records import Batch, Features
from mmtrain.tasks.retrieval import RetrievalScorer
from tests.helpers import made_batch, tiny_plan

if TYPE_CHECKING:
    from mmtrain.engine.build import Place

NUM_SAMPLES, BATCH_SIZE, K = 14, 4, 5
TEMPERATURE = 2.0


class NumberedSplit:
    """Samples made by hand; a made pair is told by its ids: the image's number and the text's.

    As many neighbours as `captions_each` share an image.
    """

    twins = ()

    def __init__(self, captions_each: int = 1) -> None:
        self.captions_each = captions_each

    def __len__(self) -> int:
        return NUM_SAMPLES

    def batches(self, batch_size: int, **_: Any) -> Iterator[Batch]:
        """As HeldOut's on one rank."""
        for start in range(0, NUM_SAMPLES, batch_size):
            batch = made_batch(range(start, start + batch_size))
            there_B = batch.places_B < NUM_SAMPLES
            yield replace(
                batch,
                has_image_B=batch.has_image_B & there_B,
                has_text_B=batch.has_text_B & there_B,
                image_ids_B=batch.places_B // self.captions_each,
                caption_ids_B=batch.places_B,
            )

    def paired(self, pairs: Sequence[tuple[int, int]], batch_size: int, **_: Any) -> Iterator[Batch]:
        """As HeldOut's on one rank."""
        for start in range(0, len(pairs), batch_size):
            own = [*pairs[start : start + batch_size], *[(0, 0)] * batch_size][:batch_size]
            images, texts = torch.tensor(own).t()
            yield replace(made_batch(range(batch_size)), image_ids_B=images, caption_ids_B=texts)


class WrittenModel:
    """Features by place, and a match head by the ids of the pair."""

    sees_features = True

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(8)
        self.image, self.text = (torch.randn(NUM_SAMPLES + BATCH_SIZE, 3, generator=generator) for _ in range(2))
        self.text += self.image  # so that a text is often, but not always, near its image
        self.margin = torch.randn(NUM_SAMPLES, NUM_SAMPLES, generator=generator)
        self.margin += 1.5 * torch.eye(NUM_SAMPLES)

    def infer(self, batches: Iterable[Batch], layout: Layout) -> Iterator[tuple[Batch, Features]]:
        """Each batch with its features."""
        for batch in batches:
            at = batch.places_B
            features = Features(image_BE=self.image[at], text_BE=self.text[at], temperature=torch.tensor([TEMPERATURE]))
            if "positive" in layout.fusion:
                logits_B2 = torch.zeros(len(at), 2)
                logits_B2[:, TOGETHER] = self.margin[batch.image_ids_B, batch.caption_ids_B]
                features["match_logits"] = {"positive": logits_B2}
            yield batch, features


def whole_samples() -> list[int]:
    batch = made_batch(range(NUM_SAMPLES))
    return (batch.has_image_B & batch.has_text_B).nonzero().flatten().tolist()


def counted(model: WrittenModel, k_of_recall: int, *, by_text: bool) -> float:
    """Recall by the definition: the true answer is among the K nearest, and few of those beat it in the sum of both."""
    whole, found = whole_samples(), 0
    for own in whole:
        similar = {
            other: float((model.text[own] @ model.image[other]) if by_text else (model.image[own] @ model.text[other]))
            for other in whole
        }
        near = sorted(whole, key=lambda other: -similar[other])[:K]
        margin = {other: float(model.margin[other, own] if by_text else model.margin[own, other]) for other in near}
        belief = {other: margin[other] + similar[other] / TEMPERATURE for other in near}
        found += own in near and sum(value >= belief[own] for value in belief.values()) <= k_of_recall
    return found / len(whole)


def reranked(place: "Place", captions_each: int, model: "WrittenModel") -> dict[str, float]:
    plan = tiny_plan(task={"name": "retrieval", "shortlist": K}, train={"micro_batch_size": BATCH_SIZE})
    scorer = RetrievalScorer(plan, place, NumberedSplit(captions_each))
    scorer.plain = type("NoScores", (), {"run": lambda self, passes: _empty()})()
    return scorer.run(model).scores["reranked"]


@pytest.fixture
def scores(place: "Place") -> dict[str, float]:
    return reranked(place, 1, WrittenModel())


def _empty() -> Any:
    from mmtrain.records import EvalReport

    return EvalReport(scores={}, retrieved=())


def test_recalls_are_those_of_a_plain_count(scores: dict[str, float]) -> None:
    model = WrittenModel()
    for name, by_text in (("image_to_text", False), ("text_to_image", True)):
        for k in (1, 5):
            assert scores[f"{name}_recall_at_{k}"] == pytest.approx(counted(model, k, by_text=by_text)), (name, k)
        assert 0 < scores[f"{name}_recall_at_1"] < scores[f"{name}_recall_at_5"] <= 1
    assert "image_to_text_recall_at_10" not in scores  # of five candidates nobody is tenth


def test_the_cost_is_said(scores: dict[str, float]) -> None:
    num_pairs = len(whole_samples())
    assert scores["num_pairs"] == num_pairs and scores["num_shortlisted"] == K
    assert num_pairs * K <= scores["num_pairs_matched"] <= 2 * num_pairs * K
    assert scores["chance_text_to_image_recall_at_1"] == pytest.approx(1 / num_pairs)


def grouped(model: WrittenModel, k_of_recall: int, *, by_text: bool) -> float:
    """Recall by the definition where three neighbours share an image: any of its captions is right."""
    whole, found = whole_samples(), []
    first = {n // 3: n for n in reversed(whole)}
    for query in whole if by_text else first:
        if by_text:
            pairs = {(first[i], query): i == query // 3 for i in first}
        else:
            pairs = {(first[query], t): t // 3 == query for t in whole}
        similar = {pair: float(model.image[pair[0]] @ model.text[pair[1]]) / TEMPERATURE for pair in pairs}
        near = sorted(pairs, key=lambda pair: -similar[pair])[:K]
        belief = {pair: float(model.margin[pair]) + similar[pair] for pair in near}
        best = max((belief[pair] for pair in near if pairs[pair]), default=None)
        beaten = best is not None and sum(belief[pair] >= best for pair in near if not pairs[pair]) < k_of_recall
        found.append(beaten)
    return sum(found) / len(found)


def test_any_caption_of_an_image_is_right_after_reranking(place: "Place") -> None:
    model = WrittenModel()
    scores = reranked(place, 3, model)
    for name, by_text in (("image_to_text", False), ("text_to_image", True)):
        assert scores[f"{name}_recall_at_1"] == pytest.approx(grouped(model, 1, by_text=by_text)), name
        assert 0 < scores[f"{name}_recall_at_1"] < 1
    whole = whole_samples()
    num_images = len({n // 3 for n in whole})
    assert (scores["num_images"], scores["num_captions"], scores["num_pairs"]) == (num_images, len(whole), len(whole))
    assert scores["chance_text_to_image_recall_at_1"] == pytest.approx(1 / num_images)
    assert scores["chance_image_to_text_recall_at_1"] == pytest.approx(1 / num_images)  # the mean of m / T over images


def test_a_model_that_knows_nothing_finds_nothing(place: "Place") -> None:
    model = WrittenModel()
    model.image, model.text, model.margin = (torch.ones_like(one) for one in (model.image, model.text, model.margin))
    scores = reranked(place, 1, model)
    assert {value for name, value in scores.items() if "recall" in name and "chance" not in name} == {0.0}
