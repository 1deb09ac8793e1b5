"""Questions and answers in a sample's KEY.json: the one schema that training, evaluation and data tools read. No torch.

{"questions": [{"question": text, "answer": text, "answers": [text, ...], "question_id": number or text, "kind": text}]}

"answers" holds one answer of each annotator, as text or as {"answer": text} (VQA v2); without it "answer" is the only
one. A question without either is not answered. Answers that the official VQA rules make equal are one answer
everywhere (`mmtrain.scores.vqa.normalized`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmtrain.data.faults import SampleError
from mmtrain.scores.vqa import normalized


@dataclass(frozen=True)
class Question:
    """One question and what people answered."""

    text: str
    answers: tuple[str, ...] = ()  # of every annotator; one where there is one truth, none where nobody answered
    number: int | str | None = None  # what the public servers know it by
    kind: str = ""  # of the answer: yes/no, number, ...
    stated: str = field(default="", compare=False)  # "answer": the one that counts as the commonest

    @property
    def main_answer(self) -> str:
        """The answer that most people gave, spelled as most of them do; empty where nobody answered."""
        return self.stated or most_common_answer(self.answers)


def parse_questions(said: dict, *, strict: bool = True, faults: list[str] | None = None) -> tuple[Question, ...]:
    """The "questions" of a sample's .json.

    With `strict`, SampleError where one cannot be used as it stands. Else those that can be used; why the others
    cannot is added to `faults`.
    """
    asked = said.get("questions", [])
    if not isinstance(asked, list):
        return _passed_over('its .json has "questions" that are no list of objects', strict, faults)
    found = []
    for one in asked:
        try:
            found.append(_question(one))
        except SampleError as error:
            if strict:
                raise
            _passed_over(str(error), strict, faults)
    return tuple(found)


def answer_class(answer: str) -> str:
    """What an answer is compared by: answers of one class are one answer in lists, in targets and in scores."""
    return normalized(answer)


def most_common_answer(answers: Sequence[str]) -> str:
    """The commonest of several answers that are compared as the official rules do; the first of equals in order."""
    classes = Counter(map(answer_class, answers))
    spelled = Counter(answers)
    return min(answers, key=lambda one: (-classes[answer_class(one)], -spelled[one], one), default="")


def _passed_over(reason: str, strict: bool, faults: list[str] | None) -> tuple[Question, ...]:
    if strict:
        raise SampleError(reason)
    if faults is not None:
        faults.append(reason)
    return ()


def _question(one: Any) -> Question:
    if not isinstance(one, dict):
        raise SampleError('its .json has "questions" that are no list of objects')
    text = one.get("question")
    if not isinstance(text, str) or not text.strip():
        raise SampleError('its .json has a question without a "question" that is text')
    several = one.get("answers")
    if several is not None and not isinstance(several, list):
        raise SampleError('its .json has "answers" that are no list of texts')
    stated = _answer(one["answer"]) if one.get("answer") is not None else ""
    answers = tuple(filter(None, map(_answer, several or ()))) or ((stated,) if stated else ())
    number, kind = one.get("question_id"), one.get("kind")
    return Question(
        text.strip(),
        answers,
        number if isinstance(number, int | str) and not isinstance(number, bool) else None,
        kind if isinstance(kind, str) else "",
        stated,
    )


def _answer(given: Any) -> str:
    """One answer, stripped; may be empty."""
    text = given.get("answer") if isinstance(given, dict) else given
    if not isinstance(text, str):
        raise SampleError('its .json has an answer that is not text: wanted texts, or objects with an "answer"')
    return text.strip()
