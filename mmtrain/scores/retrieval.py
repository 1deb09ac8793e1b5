"""Scores of a ranking, from the rank that each right answer got (1 is the first), and of a language model."""

import math
import statistics
from collections.abc import Collection, Sequence
from functools import lru_cache

MAX_EXPONENT = 709.0  # exp of more overflows a double


def rank_in_shortlist(scores: Sequence[float], right: int | Collection[int]) -> int:
    """The rank of the best of the candidates numbered `right` by score, the highest first.

    Right candidates do not compete with each other. A tie counts as lost, and so does a score that is no number.
    """
    own = {right} if isinstance(right, int) else set(right)
    best = max((scores[number] for number in own if not math.isnan(scores[number])), default=math.nan)
    return 1 + sum(not score < best for number, score in enumerate(scores) if number not in own)


@lru_cache(maxsize=4096)
def chance_recall_at(k: int, num_right: int, num_candidates: int) -> float:
    """The share of random rankings that have one of `num_right` right candidates among the first `k`."""
    if num_right == 1:
        return min(k, num_candidates) / num_candidates
    missed = math.comb(num_candidates - num_right, min(k, num_candidates))
    return 1 - missed / math.comb(num_candidates, min(k, num_candidates))


def recall_at(ranks: Sequence[int], k: int) -> float:
    """Share of the queries whose right answer is among the first `k`; ValueError without a query."""
    _refuse_bad(ranks)
    if k < 1:
        raise ValueError(f"recall at {k} is asked for; k counts answers, from 1")
    return sum(rank <= k for rank in ranks) / len(ranks)


def mean_rank(ranks: Sequence[int]) -> float:
    """Mean rank of the right answers; ValueError without a query."""
    _refuse_bad(ranks)
    return statistics.fmean(ranks)


def median_rank(ranks: Sequence[int]) -> float:
    """Median rank of the right answers, between the middle two of an even number; ValueError without a query."""
    _refuse_bad(ranks)
    return float(statistics.median(ranks))


def perplexity(sum_of_losses: float, num_tokens: float) -> float:
    """exp of the mean cross-entropy (in nats) of a token; infinity where a float cannot hold it."""
    mean = sum_of_losses / num_tokens
    return math.exp(mean) if mean < MAX_EXPONENT else math.inf


def _refuse_bad(ranks: Sequence[int]) -> None:
    if not ranks:
        raise ValueError("no ranks are given; a score needs at least one query")
    if min(ranks) < 1:
        raise ValueError(f"a rank is {min(ranks)}; ranks count from 1")
