"""Three ways to answer a question about an image: written, ranked among a list by likelihood, chosen by a head.

Every way runs in the layout that trains; every rank must call it, and the last stage alone has the answers.
Axes: B questions of this rank's batch, K candidates of each, N picked tokens, V vocabulary, A answers of the list.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch

from mmtrain.config.schema import RunConfig
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.engine.build import Place
from mmtrain.engine.passes import Passes
from mmtrain.model.rows import Layout, next_labels
from mmtrain.objectives.answer import AnswerChoice
from mmtrain.parallel.collectives import token_losses, told_by_last, whole_logits
from mmtrain.records import IGNORED_LABEL, Batch, Features
from mmtrain.tasks.beams import Marks
from mmtrain.tasks.texts import CAUSAL, Tokens, prompts_of, with_texts
from mmtrain.tasks.writing import Writer

CHOICE = Layout.of(AnswerChoice.rows)


class Answerer(Protocol):
    """Answers the questions of batches."""

    def answer(self, passes: Passes, batches: Iterable[Batch]) -> Iterator[list[str]]:
        """An answer to each question of each batch; on the last stage, else empty lists."""
        ...


def build_answerer(plan: RunConfig, place: Place, tokenizer: Tokenizer) -> Answerer:
    """The way that task.answering names."""
    ways = {"write": WritesAnswers, "rank": RanksAnswers, "choose": ChoosesAnswers}
    return ways[plan.task.answering](plan, place, tokenizer)


class WritesAnswers:
    """Token by token behind the question, by beam search."""

    def __init__(self, plan: RunConfig, place: Place, tokenizer: Tokenizer) -> None:
        self.writer, self.tokenizer = Writer(plan, place, Marks.of(tokenizer)), tokenizer

    def answer(self, passes: Passes, batches: Iterable[Batch]) -> Iterator[list[str]]:
        for written in self.writer.write(passes, batches):
            yield [self.tokenizer.decode(tokens) for tokens in written]


class RanksAnswers:
    """The likeliest of task.answers, by the sum of the log-probabilities of its tokens, [SEP] among them.

    All of a short list are looked at; of a longer one the first task.shortlist by the likelihood of their first token
    (Li et al. 2022). A question costs one pass for that and one for each candidate.
    """

    def __init__(self, plan: RunConfig, place: Place, tokenizer: Tokenizer) -> None:
        self.plan, self.place, self.marks = plan, place, Marks.of(tokenizer)
        room = plan.task.max_new_tokens or plan.model.max_text_length
        self.answers = plan.task.answers
        self.tokens: list[Tokens] = [tuple(tokenizer.encode(answer, room + 1)[1:]) for answer in self.answers]
        self.num_candidates = min(plan.task.shortlist, len(self.answers))

    def answer(self, passes: Passes, batches: Iterable[Batch]) -> Iterator[list[str]]:
        for batch in batches:
            prompts = prompts_of(batch, self.marks.cls_id)
            shortlists = self._shortlists(passes, batch, prompts)
            scores_KB = [
                likelihoods(asked, features)
                for asked, features in passes.infer(self._asked(batch, prompts, shortlists), CAUSAL)
                if features is not None
            ]
            if not passes.sees_features:
                yield []
                continue
            best_B = torch.stack(scores_KB).argmax(dim=0).tolist()
            yield [self.answers[numbers[best]] for numbers, best in zip(shortlists, best_B, strict=True)]

    def _shortlists(self, passes: Passes, batch: Batch, prompts: list[Tokens]) -> list[list[int]]:
        """Numbers of the candidates of each question, on every stage."""
        if self.num_candidates == len(self.answers):
            return [list(range(len(self.answers)))] * len(prompts)
        texts = [(*prompt, self.marks.pad_id) for prompt in prompts]
        asked = self._with_texts(batch, texts, prompts)
        ((_, features),) = passes.infer([asked], CAUSAL)
        found: list[list[int]] = []
        if features is not None:
            logits_BV = whole_logits(features["token_logits"]["causal"], self.place.groups.tensor)
            firsts_A = torch.tensor([tokens[0] for tokens in self.tokens], device=logits_BV.device)
            found = logits_BV[:, firsts_A].topk(self.num_candidates, dim=1).indices.tolist()
        return told_by_last(found, self.place.groups.pipe)

    def _asked(self, batch: Batch, prompts: list[Tokens], shortlists: list[list[int]]) -> Iterator[Batch]:
        """One batch for each candidate: the k-th of every question."""
        for k in range(self.num_candidates):
            texts = [(*prompt, *self.tokens[numbers[k]]) for prompt, numbers in zip(prompts, shortlists, strict=True)]
            yield self._with_texts(batch, texts, prompts)

    def _with_texts(self, batch: Batch, texts: list[Tokens], prompts: list[Tokens]) -> Batch:
        lengths = [len(prompt) for prompt in prompts]
        return with_texts(batch, self.plan, texts, lengths, pad_id=self.marks.pad_id)


class ChoosesAnswers:
    """The answer that the head of the model finds best."""

    def __init__(self, plan: RunConfig, place: Place, tokenizer: Tokenizer) -> None:
        self.answers = plan.task.answers

    def answer(self, passes: Passes, batches: Iterable[Batch]) -> Iterator[list[str]]:
        for _, features in passes.infer(batches, CHOICE):
            best_B = [] if features is None else features["answer_logits_BA"].argmax(dim=-1).tolist()
            yield [self.answers[number] for number in best_B]


def likelihoods(batch: Batch, features: Features) -> torch.Tensor:
    """[B]: log-probability of what follows each prompt, summed over its tokens."""
    losses_N = token_losses(features["token_logits"]["causal"], features["token_labels"]["causal"])
    row_N = (next_labels(batch.to(torch.device("cpu"))) != IGNORED_LABEL).nonzero()[:, 0].to(losses_N.device)
    sums_B = torch.zeros(len(batch.places_B), device=losses_N.device)
    return sums_B.index_add(0, row_N, -losses_N[: len(row_N)])
