"""Answers about held-out images: what is scored, and what is said of what is not."""

import logging

import pytest

from mmtrain.data.question_schema import Question
from mmtrain.tasks.vqa import log_unanswered


@pytest.mark.parametrize(("answers", "said"), [([("red",), ()], "1 of 2"), ([(), ()], "2 of 2"), ([("red",)], "")])
def test_questions_without_answers_are_counted_in_the_log(
    answers: list[tuple[str, ...]], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="mmtrain.tasks"):
        log_unanswered([Question("what?", each) for each in answers])
    assert caplog.messages == (
        [f"data.heldout: {said} questions have no answers: not scored, only answered"] if said else []
    )
