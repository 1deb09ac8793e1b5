"""`mmdata answers`: the commonest answers of shards, and what share of the questions they are right for."""

import json
from pathlib import Path

from data_tools.answers import common_answers
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
    assert common_answers([shard], min_count=1, most=None) == (["yes", "no", "red"], 1.0)
    assert common_answers([shard], min_count=2, most=None) == (["yes"], 0.5)
    assert common_answers([shard], min_count=1, most=2) == (["yes", "no"], 0.75)
    assert common_answers([shard], min_count=9, most=None) == ([], 0.0)
