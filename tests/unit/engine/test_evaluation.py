"""Held-out scores against loops over every pair, on one process."""

from typing import TYPE_CHECKING

import pytest
import torch

from mmtrain.data.heldout import Twin
from mmtrain.engine.evaluation import Evaluation, Gallery
from tests.unit.engine.scored import (
    EVERY,
    NUM_PAIRS,
    WrittenPasses,
    WrittenSplit,
    brute_force,
    pairs,
    scored,
    written_answers,
)

if TYPE_CHECKING:
    from mmtrain.engine.build import Place


@pytest.mark.parametrize(
    ("captions_each", "repeats"), [(1, NUM_PAIRS), (3, NUM_PAIRS), (30, NUM_PAIRS), (1, 5), (3, 4)]
)
@pytest.mark.parametrize("batch_size", [4, 8, 32])
def test_every_score_is_that_of_a_brute_force_reference(
    place: "Place", batch_size: int, captions_each: int, repeats: int
) -> None:
    report, wanted = scored(place, batch_size, captions_each, repeats), brute_force(captions_each, repeats)
    assert report.scores.keys() == wanted.keys()
    for name, scores in wanted.items():
        assert report.scores[name] == pytest.approx(scores, rel=1e-6), name


def test_the_written_split_has_ties_and_samples_that_are_no_pairs() -> None:
    said, whole = written_answers(), pairs()
    similar = (said["image"] @ said["text"].t())[whole][:, whole]
    assert ((similar == similar.diag()[:, None]).sum(dim=1) > 1).any()
    assert 10 < len(whole) < NUM_PAIRS
    assert any(WrittenSplit.twins[n] for n in whole)


def test_a_tie_counts_as_lost(place: "Place", monkeypatch: pytest.MonkeyPatch) -> None:
    same = {
        name: torch.ones_like(said) if name in ("image", "text") else said for name, said in written_answers().items()
    }
    monkeypatch.setattr("tests.unit.engine.scored.written_answers", lambda: same)
    scores = scored(place, 8).scores["heldout"]
    # A model that gives every pair the same features knows nothing, and must not be seen to.
    assert [scores[f"image_to_text_recall_at_{k}"] for k in (1, 5, 10)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_perfect_model_finds_each_of_five_captions(place: "Place", noise: float) -> None:
    image_IE = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    image_NE = image_IE.repeat_interleave(5, dim=0)
    text_NE = image_NE + noise * torch.randn(20, 8, generator=torch.Generator().manual_seed(2))
    evaluation = Evaluation(WrittenSplit(), EVERY, place.groups, place.device, 4, 5)
    ids_N, pair_N = torch.arange(20) // 5, torch.ones(20, dtype=torch.bool)
    scores = evaluation._retrieval_scores(image_NE, text_NE, Gallery.of(ids_N, torch.arange(20), pair_N))
    assert (scores["num_images"], scores["num_captions"]) == (4, 20)
    assert {value for name, value in scores.items() if "recall" in name} == {1.0}


def test_a_caption_that_two_images_share_is_right_for_both(place: "Place") -> None:
    image_NE = torch.eye(3)
    text_NE = torch.stack([image_NE[0] + image_NE[1], image_NE[0] + image_NE[1], image_NE[2]])  # equal texts
    evaluation = Evaluation(WrittenSplit(), EVERY, place.groups, place.device, 4, 5)
    gallery = Gallery.of(torch.arange(3), torch.tensor([7, 7, 8]), torch.ones(3, dtype=torch.bool))
    scores = evaluation._retrieval_scores(image_NE, text_NE, gallery)
    assert {value for name, value in scores.items() if "recall" in name} == {1.0}


def test_features_that_are_no_numbers_find_nothing(place: "Place") -> None:
    evaluation = Evaluation(WrittenSplit(), EVERY, place.groups, place.device, 4, 5)
    image_NE, text_NE = torch.full((20, 8), torch.nan), torch.randn(20, 8)
    gallery = Gallery.of(torch.arange(20), torch.arange(20), torch.ones(20, dtype=torch.bool))
    scores = evaluation._retrieval_scores(image_NE, text_NE, gallery)
    assert {value for name, value in scores.items() if "recall" in name} == {0.0}


class BrokenTwins(WrittenSplit):
    """Only samples whose image cannot be read have a twin."""

    twins = tuple(Twin("x", "color") if n == 6 else None for n in range(NUM_PAIRS))


def test_twins_of_broken_images_are_no_score(place: "Place") -> None:
    assert 6 not in pairs()
    report = Evaluation(BrokenTwins(), EVERY, place.groups, place.device, 4, 5).run(WrittenPasses())
    assert report.scores.keys() == {"heldout"}


def test_the_retrieved_captions_are_the_nearest_of_those_that_are_there(place: "Place") -> None:
    said, whole = written_answers(), pairs()
    for image, best in enumerate(scored(place, 8).retrieved):
        similar = {key: float(said["image"][image] @ said["text"][key]) for key in whole}
        assert best in similar and similar[best] == max(similar.values())
