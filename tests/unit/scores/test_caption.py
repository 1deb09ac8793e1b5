"""Scores of captions, against the public scorers' and against ones counted by hand."""

import math

import pytest

from mmtrain.scores.caption import bleu, caption_scores, cider, cider_d, rouge_l, words_of
from tests.unit.scores.public_captions import RECORDED, corpus, public_scores

SCORES = [bleu, rouge_l, cider, cider_d]


def test_scores_equal_those_of_the_public_scorers() -> None:
    found = caption_scores(*corpus())
    assert {name: found[name] for name in RECORDED} == pytest.approx(RECORDED, abs=1e-6)


def test_the_public_scorers_still_give_what_was_recorded() -> None:
    pytest.importorskip("pycocoevalcap", reason="recorded values stand in for it")
    assert public_scores() == pytest.approx(RECORDED, abs=1e-6)


def test_a_corpus_that_repeats_its_references_has_the_highest_scores() -> None:
    captions = ["a red ball on the grass", "two small cats sit still"]
    scores = caption_scores(captions, [[caption] for caption in captions])
    assert [scores[f"bleu_{order}"] for order in range(1, 5)] == pytest.approx([1.0] * 4)
    assert scores["rouge_l"] == pytest.approx(1.0)
    assert scores["cider"] == scores["cider_d"] == pytest.approx(10.0)


def test_bleu_of_one_word_of_two_is_that_of_the_papers() -> None:
    assert bleu([["a", "b"]], [[["a", "c"]]])[0] == pytest.approx(0.5)
    assert bleu([["a"]], [[["a", "b", "c"]]])[0] == pytest.approx(math.exp(1 - 3))  # right but too short


def test_rouge_counts_words_in_order_however_far_apart() -> None:
    precision, recall = 2 / 3, 2 / 4
    by_hand = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert rouge_l([["a", "x", "b"]], [[["a", "y", "z", "b"]]]) == pytest.approx(by_hand)


def test_cider_d_punishes_length_and_repetition_where_cider_does_not() -> None:
    wanted = [[["red", "ball"]], [["blue", "ring"]]]
    once, often = [["red", "ball"], ["blue", "ring"]], [["red"] * 9 + ["ball"] * 9, ["blue", "ring"]]
    assert cider_d(once, wanted) == cider(once, wanted)
    assert cider_d(often, wanted) < 0.9 * cider(often, wanted)


def test_words_are_lower_case_and_without_punctuation() -> None:
    assert words_of("A well-known dog's ball, on the Grass.") == [
        "a",
        "well-known",
        "dog's",
        "ball",
        "on",
        "the",
        "grass",
    ]


@pytest.mark.parametrize("score", SCORES)
def test_captions_without_references_are_refused(score: object) -> None:
    with pytest.raises(ValueError, match="one caption an image"):
        score([["a"]], [])
    with pytest.raises(ValueError, match="one caption an image"):
        score([], [])
    with pytest.raises(ValueError, match="has no reference"):
        score([["a"], ["b"]], [[["a"]], []])
