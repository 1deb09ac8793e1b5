"""Visual question answering: what the model answers about held-out images, scored by the official rule."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from mmtrain.config.schema import RunConfig
from mmtrain.data.heldout import HeldOut
from mmtrain.engine.build import Place, build_evaluation, trims_texts
from mmtrain.engine.contract import Scorer
from mmtrain.engine.passes import Passes
from mmtrain.parallel.collectives import gathered_lists, told_by_last
from mmtrain.records import EvalReport, Shown
from mmtrain.scores.vqa import commonest, vqa_accuracy, vqa_scores
from mmtrain.tasks.answering import build_answerer

NAME = "vqa"
MOSTLY_RIGHT = 0.5  # accuracy of an answer from which on a picture of it is framed as right


class QuestionAnswering:
    """Answers are learned: to be written behind their question, or to be chosen from a list."""

    name = "vqa"

    def scorer(self, plan: RunConfig, place: Place, heldout: HeldOut) -> Scorer:
        return VqaScorer(plan, place, heldout)


class VqaScorer:
    """Accuracy of the answers beside that of the commonest one; of written ones also the truths' perplexity."""

    def __init__(self, plan: RunConfig, place: Place, heldout: HeldOut) -> None:
        self.plan, self.place, self.heldout = plan, place, heldout
        self.plain = None if plan.task.answering == "choose" else build_evaluation(plan, place, heldout)
        self.answerer = build_answerer(plan, place, heldout.tokenizer)

    def run(self, passes: Passes) -> EvalReport:
        report = self.plain.run(passes) if self.plain else EvalReport(scores={}, retrieved=())
        answers = self._answers(passes)
        names = [self.heldout.question_name(number) for number in range(len(answers))]
        rows = [{"question_id": name, "answer": answer} for name, answer in zip(names, answers, strict=True)]
        scores = report.scores | self._scores(answers)
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

    def _answers(self, passes: Passes) -> list[str]:
        """The answer to each held-out question in order, the same on every rank."""
        groups = self.place.groups
        size, trim = self.plan.train.micro_batch_size, trims_texts(self.plan)
        batches = self.heldout.batches(size, dp=groups.grid.dp, dp_rank=groups.coord.dp, trim=trim)
        found: list[str] = []
        for own in self.answerer.answer(passes, batches):
            found += gathered_lists(own, groups.data)
        return told_by_last(found, groups.pipe)[: len(self.heldout)]

    def _scores(self, answers: Sequence[str]) -> dict[str, dict[str, float]]:
        """Over the questions that somebody answered: the public servers keep the truths of some sets to themselves."""
        known = [(said, asked) for said, asked in zip(answers, self.heldout.questions, strict=True) if asked.answers]
        if not known:
            return {}
        said, truths = [answer for answer, _ in known], [asked.answers for _, asked in known]
        return {NAME: vqa_scores(said, truths, [asked.kind for _, asked in known])}
