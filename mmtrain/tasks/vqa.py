"""Visual question answering: what the model answers about held-out images, scored by the official rule."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from mmtrain.config.schema import RunConfig
from mmtrain.data.answer_ids import choose_ids, merged_rows
from mmtrain.data.heldout import HeldOut
from mmtrain.data.question_schema import Question
from mmtrain.engine.build import Place, build_evaluation
from mmtrain.engine.contract import Scorer
from mmtrain.engine.passes import Passes
from mmtrain.records import EvalReport, Shown
from mmtrain.scores.vqa import commonest, vqa_accuracy, vqa_scores
from mmtrain.tasks.answering import build_answerer
from mmtrain.tasks.split import texts_of_split

LOG = logging.getLogger("mmtrain.tasks")
NAME = "vqa"
MOSTLY_RIGHT = 0.5  # accuracy of an answer from which on a picture of it is framed as right


def log_unanswered(questions: Sequence[Question]) -> None:
    """Log how many questions nobody answered, as of a test set whose truths its server keeps."""
    if count := sum(not question.answers for question in questions):
        LOG.info("data.heldout: %d of %d questions have no answers: not scored, only answered", count, len(questions))


class QuestionAnswering:
    """Answers are learned: to be written behind their question, or to be chosen from a list."""

    name = "vqa"

    def scorer(self, plan: RunConfig, place: Place, heldout: HeldOut) -> Scorer:
        return VqaScorer(plan, place, heldout)


class VqaScorer:
    """Accuracy of the answers beside that of the commonest one; of written ones also the truths' perplexity."""

    def __init__(self, plan: RunConfig, place: Place, heldout: HeldOut) -> None:
        self.plan, self.place, self.heldout = plan, place, heldout
        log_unanswered(heldout.questions)
        self.ids = choose_ids([heldout.answered(number) for number in range(len(heldout))], "question_id")
        self.plain = None if plan.task.answering == "choose" else build_evaluation(plan, place, heldout)
        self.answerer = build_answerer(plan, place, heldout.tokenizer)

    def run(self, passes: Passes) -> EvalReport:
        report = self.plain.run(passes) if self.plain else EvalReport(scores={}, retrieved=())
        write = partial(self.answerer.answer, passes)
        answers, is_whole = texts_of_split(self.plan, self.place, self.heldout, write)
        rows = merged_rows(self.ids, [{"answer": answer} for answer in answers], "question_id")
        scores = report.scores | self._scores(answers, is_whole)
        return replace(report, scores=scores, answers={NAME: rows}, shown=self._shown(answers))

    def _shown(self, answers: Sequence[str]) -> tuple[Shown, ...]:
        """The first questions with their answers."""
        asked = zip(self.heldout.questions, answers, strict=True)
        return tuple(
            Shown(number, f"{question.text} {commonest([question.answers])}", answer,
                  vqa_accuracy(answer, question.answers) >= MOSTLY_RIGHT)
            if question.answers else Shown(number, question.text, answer, None)
            for number, (question, answer) in enumerate(islice(asked, self.plan.eval.num_pictures))
        )  # fmt: skip

    def _scores(self, answers: Sequence[str], is_whole: Sequence[bool]) -> dict[str, dict[str, float]]:
        """Over the questions that somebody answered and whose image can be read.

        The public servers keep the truths of some sets to themselves.
        """
        asked = zip(answers, self.heldout.questions, is_whole, strict=True)
        known = [(said, question) for said, question, whole in asked if question.answers and whole]
        if not known:
            return {}
        said, truths = [answer for answer, _ in known], [question.answers for _, question in known]
        return {NAME: vqa_scores(said, truths, [question.kind for _, question in known])}
