"""Questions about an image: the texts and targets that they become. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mmtrain.config.schema import TaskConfig
from mmtrain.data.faults import DataError
from mmtrain.data.question_schema import Question
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.scores.vqa import normalized, vqa_accuracy

MAX_TARGETS = 10  # answers of a list that are right to some degree: VQA v2 has ten annotators


@dataclass(frozen=True)
class Asking:
    """How questions and answers become texts: question [SEP] answer [SEP], or the question alone and targets."""

    room: int  # tokens that a question leaves for its answer, the last [SEP] among them; 0: the answer is no text
    listed: tuple[str, ...] = ()  # answers to choose from
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers.update((normalized(answer), number) for number, answer in reversed([*enumerate(self.listed)]))

    @classmethod
    def of(cls, task: TaskConfig) -> "Asking | None":
        """How a task asks; None where it asks nothing."""
        if task.name != "vqa":
            return None
        return cls(0, task.answers) if task.answering == "choose" else cls(task.max_new_tokens or 0)

    @property
    def writes(self) -> bool:
        """Whether answers are texts."""
        return self.room > 0

    def tokens(self, question: str, answer: str | None, tokenizer: Tokenizer, length: int) -> tuple[np.ndarray, int]:
        """The text, int64, of at most `length` tokens, and how many of them the question takes with its [SEP].

        A question is cut as if its answer took all its room, whatever the answer is.
        """
        asked = tokenizer.encode(question, length - self.room)
        said = tokenizer.encode(answer, self.room + 1)[1:] if self.writes and answer is not None else []
        return np.array([*asked, *said], np.int64), len(asked)

    def refuse_unfit(self, questions: Sequence[Question], knob: str) -> None:
        """DataError where the first samples of a set have no questions, or task.answers the answer to none of them."""
        if self.listed and len(self._numbers) < len(self.listed):
            raise DataError(
                f"task.answers lists answers that are one when they are compared: {self._equal()}; keep one"
            )
        answered = [question for question in questions if question.answers]
        if not answered:
            raise DataError(
                f'{knob} has no answered "questions" in the KEY.json of its first samples; `mmdata build --vqa` takes '
                "those of VQA v2, `mmdata synth` makes some up"
            )
        if self.listed and not any(self.targets(question.answers) for question in answered):
            raise DataError(
                f"task.answers lists {len(self.listed)} answers ({self.listed[0]!r} is the first), and none of them "
                f"answers any of the first {len(answered)} questions ({answered[0].answers[0]!r} does the first); "
                "`mmdata answers SHARDS` lists what these shards are answered with"
            )

    def _equal(self) -> str:
        """The first two listed answers that the official rules make equal."""
        for number, answer in enumerate(self.listed):
            if (first := self._numbers[normalized(answer)]) != number:
                return f"{self.listed[first]!r} and {answer!r}"
        return ""

    def targets(self, answers: Sequence[str]) -> tuple[tuple[int, float], ...]:
        """Numbers of the listed answers that people gave, each with the accuracy that it would get, the best first."""
        if not self.listed:
            return ()
        given = {self._numbers[said] for answer in answers if (said := normalized(answer)) in self._numbers}
        scored = [(number, vqa_accuracy(self.listed[number], answers)) for number in given]
        return tuple(sorted(scored, key=lambda one: (-one[1], one[0]))[:MAX_TARGETS])
