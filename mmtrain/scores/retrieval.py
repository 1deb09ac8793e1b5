"""Scores of a ranking, from the rank that each right answer got (1 is the first), and of a language model."""

import math
import statistics
from collections.abc import Sequence

MAX_EXPONENT = 709.0  # exp of more overflows a double


def rank_in_shortlist(scores: Sequence[float], right: int) -> int:
    """The rank of candidate number `right` by score, the highest first; a tie counts as lost."""
    return sum(score >= scores[right] for score in scores)


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
