"""`mmdata answers`: the commonest answers of shards, and what share of the questions they are right for."""

import json
from pathlib import Path

import pytest

from data_tools.answers import common_answers
from mmtrain.data.faults import DataError
from mmtrain.data.question_schema import parse_questions
from mmtrain.data.questions import Asking
from tests.unit.data.made import write_tar


def test_answers_are_listed_by_how_many_questions_they_answer(tmp_path: Path) -> None:
    asked = [
        {"question": "a?", "answer": "yes", "answers": ["yes"] * 6 + ["no"] * 4},
        {"question": "b?", "answers": ["no", "yes", "yes"]},
        {"question": "c?", "answer": " no "},
        {"question": "d?", "answer": "red"},
        {"question": "e?"},
    ]
    samples = {"k0": {"json": json.dumps({"questions": asked}).encode()}, "k1": {"json": b"{"}, "k2": {"txt": b"x"}}
    shard = write_tar(tmp_path / "a.tar", samples)
    assert common_answers([shard], min_count=1, most=None) == (["yes", "no", "red"], 1.0, 1)
    assert common_answers([shard], min_count=2, most=None) == (["yes"], 0.5, 1)
    assert common_answers([shard], min_count=1, most=2) == (["yes", "no"], 0.75, 1)
    assert common_answers([shard], min_count=9, most=None) == ([], 0.0, 1)


def test_answers_that_scores_take_for_one_are_counted_and_listed_as_one(tmp_path: Path) -> None:
    given = ["two", "2", "two", "the dog", "dog", "dog.", "Dog"]
    asked = [{"question": f"q{number}?", "answer": answer} for number, answer in enumerate(given)]
    shard = write_tar(tmp_path / "a.tar", {"k": {"json": json.dumps({"questions": asked}).encode()}})
    found = common_answers([shard], min_count=3, most=None)
    assert found == (["Dog", "two"], 1.0, 0)
    asking = Asking(0, tuple(found.answers))
    assert [asking.targets([answer]) for answer in given] == [((1, 1.0),)] * 3 + [((0, 1.0),)] * 4


def test_listed_answers_that_are_one_are_refused() -> None:
    question = parse_questions({"questions": [{"question": "how many?", "answer": "2"}]})
    with pytest.raises(DataError, match="answers that are one when they are compared: 'two' and '2'; keep one"):
        Asking(0, ("yes", "two", "2")).refuse_unfit(question, "data.train")
