"""Beam search on log-probabilities, token by token: the arithmetic alone, on however many texts at once.

Axes: B texts, K beams, V vocabulary. It finds what transformers' beam search finds with early_stopping=False.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from mmtrain.config.schema import TaskConfig
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.tasks.sampling import with_chance

NEVER = -1e9  # the score of what is no candidate; a float, so that it can be added to others


@dataclass(frozen=True)
class Marks:
    """What a vocabulary has beside words."""

    pad_id: int
    cls_id: int  # begins a text
    sep_id: int  # ends it
    silent: tuple[int, ...]  # special tokens that are never written
    num_pieces: int  # ids from here on are padding of the vocabulary, and never written either

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Marks":
        """The marks of a tokenizer, whatever its ids."""
        pad, unk, begin, end, mask = (getattr(tokenizer, f"{name}_id") for name in ("pad", "unk", "cls", "sep", "mask"))
        return cls(pad, begin, end, tuple(sorted({pad, unk, begin, mask} - {end})), tokenizer.num_pieces)


@dataclass
class Search:
    """One text that is being written."""

    prompt: tuple[int, ...]
    max_length: int  # tokens at most, prompt and [SEP] among them
    running: list[tuple[int, ...]]  # K beginnings, the likeliest first, the prompt in front
    finished: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)  # K at most, the best first
    is_open: bool = True  # whether a better text may still be found


class BeamSearch:
    """All texts of a batch, of `max_length` tokens at most.

    Where task.temperature asks for draws, `seeds` has one word for each text, which they follow from.
    """

    def __init__(
        self,
        how: TaskConfig,
        prompts: Sequence[Sequence[int]],
        max_length: int,
        marks: Marks,
        seeds: Sequence[str] = (),
    ) -> None:
        self.how, self.marks, self._seeds = how, marks, seeds
        most_new = how.max_new_tokens or max_length
        self.texts = [
            Search(tuple(prompt), min(max_length, len(prompt) + most_new), [tuple(prompt)] * how.num_beams)
            for prompt in prompts
        ]
        self._scores_BK = torch.full((len(prompts), how.num_beams), NEVER)
        self._scores_BK[:, 0] = 0.0  # all beams are alike at first: only one of them may branch

    @property
    def beginnings(self) -> list[tuple[int, ...]]:
        """What the next token is asked for: K of each text, in order."""
        return [tokens for text in self.texts for tokens in text.running]

    @property
    def is_open(self) -> bool:
        """Whether another token may better any text."""
        return any(text.is_open for text in self.texts)

    @property
    def found(self) -> list[tuple[int, ...]]:
        """The best of each text, without its prompt and [SEP]."""
        best = [(text.finished[0][1] if text.finished else text.running[0])[len(text.prompt) :] for text in self.texts]
        return [tokens[:-1] if tokens and tokens[-1] == self.marks.sep_id else tokens for tokens in best]

    def advance(self, logits_RV: torch.Tensor) -> None:
        """Take up the logits of the next token of each of `beginnings`; R is B x K."""
        num_beams, vocab_size = self.how.num_beams, logits_RV.shape[-1]
        log_probs_RV = logits_RV.float().log_softmax(dim=-1)
        log_probs_RV[:, [*self.marks.silent, *range(self.marks.num_pieces, vocab_size)]] = -torch.inf
        if self.how.no_repeat_ngram:
            for row, tokens in enumerate(self.beginnings):
                log_probs_RV[row, _repeating(tokens, self.how.no_repeat_ngram)] = -torch.inf
        if self.how.temperature > 0:
            words = [f"{seed}/{len(text.running[0])}" for seed, text in zip(self._seeds, self.texts, strict=True)]
            log_probs_RV = with_chance(log_probs_RV, self.how, words)
        whole_BKV = log_probs_RV.cpu().unflatten(0, (-1, num_beams)) + self._scores_BK[:, :, None]
        # Twice as many as there are beams: if half of them end, the others go on.
        scores_BC, places_BC = whole_BKV.flatten(1).topk(2 * num_beams)
        for number, text in enumerate(self.texts):
            if not text.is_open:
                continue
            found = [divmod(place, vocab_size) for place in places_BC[number].tolist()]
            candidates = [(*text.running[beam], token) for beam, token in found]
            self._scores_BK[number] = self._take(text, candidates, scores_BC[number])

    def _take(self, text: Search, candidates: list[tuple[int, ...]], scores_C: torch.Tensor) -> torch.Tensor:
        """Keep the best candidates of a text, those that end apart from those that go on; the scores of the latter."""
        num_beams, num_new = self.how.num_beams, len(candidates[0]) - len(text.prompt)
        ends = [tokens[-1] == self.marks.sep_id or len(tokens) == text.max_length for tokens in candidates]
        norm = num_new**self.how.length_penalty
        ended = [(float(scores_C[c]) / norm, candidates[c]) for c in range(num_beams) if ends[c]]
        # Sorting is stable: of two that are as good the older stays.
        text.finished = sorted(text.finished + ended, key=lambda each: -each[0])[:num_beams]
        goes_on_C = scores_C + NEVER * torch.tensor(ends)
        scores_K, best_K = goes_on_C.topk(num_beams)
        text.running = [candidates[c] for c in best_K.tolist()]
        if all(ends) or num_beams == 1:
            text.is_open = not text.finished
        elif len(text.finished) == num_beams:
            text.is_open = float(scores_K[0]) / norm > text.finished[-1][0]
        return scores_K


def _repeating(tokens: Sequence[int], size: int) -> list[int]:
    """The tokens that would end a run of `size` tokens that is there already."""
    if len(tokens) + 1 < size:
        return []
    ending = tuple(tokens[len(tokens) + 1 - size :])
    runs = (tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1))
    return [run[-1] for run in runs if run[:-1] == ending]
