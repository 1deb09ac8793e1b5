"""Questions in KEY.json: what is read, what is refused, and what is passed over."""

from typing import Any

import pytest

from mmtrain.data.faults import SampleError
from mmtrain.data.question_schema import answer_class, most_common_answer, parse_questions

UNUSABLE: list[Any] = [
    5, "why?", [5], ["why?"], [{}], [{"question": None}], [{"question": " "}], [{"question": ["x"]}],
    [{"question": "q", "answer": 5}], [{"question": "q", "answer": ["x"]}], [{"question": "q", "answers": "x"}],
    [{"question": "q", "answers": {"x": 1}}], [{"question": "q", "answers": [None]}],
    [{"question": "q", "answers": [3]}], [{"question": "q", "answers": [["x"]]}],
    [{"question": "q", "answers": [{"answer": None}]}], [{"question": "q", "answers": [{}]}],
]  # fmt: skip


@pytest.mark.parametrize("asked", UNUSABLE, ids=repr)
def test_questions_of_another_form_are_refused_or_passed_over(asked: Any) -> None:
    with pytest.raises(SampleError, match="its .json has"):
        parse_questions({"questions": asked})
    faults: list[str] = []
    assert parse_questions({"questions": asked}, strict=False, faults=faults) == () and len(faults) == 1


def test_annotators_answer_in_texts_or_objects() -> None:
    for answers in (["a", " b "], [{"answer": "a"}, {"answer": "b", "answer_id": 2}]):
        (question,) = parse_questions({"questions": [{"question": "q", "answers": answers}]})
        assert question.answers == ("a", "b")


@pytest.mark.parametrize("answers", [None, []])
def test_without_a_list_the_answer_is_the_only_one(answers: Any) -> None:
    (question,) = parse_questions({"questions": [{"question": "q", "answers": answers, "answer": "so"}]})
    assert question.answers == ("so",) and question.main_answer == "so"
    (question,) = parse_questions({"questions": [{"question": "q", "answers": answers, "answer": None}]})
    assert question.answers == () and question.main_answer == ""


def test_the_commonest_answer_is_that_of_its_class() -> None:
    assert most_common_answer(["the dog", "dog", "dog", "cat", "cat"]) == "dog"
    assert most_common_answer(["two", "2", "2", "three", "three"]) == "2"
    assert answer_class("The Two!") == answer_class("2")
