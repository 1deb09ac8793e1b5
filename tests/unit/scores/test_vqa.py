"""VQA accuracy, against the official evaluation's on answers made up to touch each of its rules."""

import pytest

from mmtrain.scores.vqa import mean_vqa_accuracy, normalized, vqa_accuracy, vqa_scores
from tests.unit.scores.official_answers import CASES, RECORDED, official_accuracies


@pytest.mark.parametrize("rule", CASES)
def test_accuracy_is_that_of_the_official_evaluation(rule: str) -> None:
    answer, people = CASES[rule]
    assert len(people) == 10
    assert vqa_accuracy(answer, people) == pytest.approx(RECORDED[rule], abs=1e-9)


def test_the_official_evaluation_still_gives_what_was_recorded() -> None:
    pytest.importorskip("vqa_eval", reason="recorded values stand in for it")
    assert official_accuracies() == pytest.approx(RECORDED, abs=1e-9)


def test_the_mean_over_questions_weighs_each_the_same() -> None:
    answers, people = zip(*CASES.values(), strict=True)
    assert mean_vqa_accuracy(answers, people) == pytest.approx(sum(RECORDED.values()) / len(RECORDED))


def test_an_only_answer_counts_as_if_everyone_had_given_it() -> None:
    assert vqa_accuracy("The Two", ["2"]) == 1.0
    assert vqa_accuracy("top left", ["top left"]) == 1.0
    assert vqa_accuracy("left", ["top left"]) == 0.0


def test_normalizing_twice_changes_nothing_more() -> None:
    once = [normalized(answer) for answer, _ in CASES.values()]
    assert [normalized(answer) for answer in once] == once


def test_no_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="no answer to compare with"):
        vqa_accuracy("yes", [])
    with pytest.raises(ValueError, match="one to each"):
        mean_vqa_accuracy(["yes"], [])


def test_answers_are_scored_in_all_and_by_kind_beside_the_commonest_ones() -> None:
    truths = [["yes"], ["no"], ["yes"], ["red"], ["blue"]]
    kinds = ["yes/no", "yes/no", "yes/no", "color", "color"]
    scores = vqa_scores(["yes", "yes", "no", "red", "blue"], truths, kinds)
    assert scores == {
        "vqa_accuracy": pytest.approx(3 / 5),
        "constant_vqa_accuracy": pytest.approx(2 / 5),  # always yes
        "constant_by_kind_vqa_accuracy": pytest.approx(3 / 5),  # yes, and blue
        "vqa_accuracy_color": 1.0,
        "vqa_accuracy_yes_no": pytest.approx(1 / 3),
        "num_questions": 5,
    }
    assert set(vqa_scores(["yes"], [["yes"]], [""])) == {"vqa_accuracy", "constant_vqa_accuracy", "num_questions"}
