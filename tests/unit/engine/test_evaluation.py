"""Held-out scores against loops over every pair, on one process."""

from typing import TYPE_CHECKING

import pytest
import torch

from tests.unit.engine.scored import NUM_PAIRS, WrittenSplit, brute_force, pairs, scored, written_answers

if TYPE_CHECKING:
    from mmtrain.engine.build import Place


@pytest.mark.parametrize("batch_size", [4, 8, 32])
def test_every_score_is_that_of_a_brute_force_reference(place: "Place", batch_size: int) -> None:
    report, wanted = scored(place, batch_size), brute_force()
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


def test_the_retrieved_captions_are_the_nearest_of_those_that_are_there(place: "Place") -> None:
    said, whole = written_answers(), pairs()
    for image, best in enumerate(scored(place, 8).retrieved):
        similar = {key: float(said["image"][image] @ said["text"][key]) for key in whole}
        assert best in similar and similar[best] == max(similar.values())
