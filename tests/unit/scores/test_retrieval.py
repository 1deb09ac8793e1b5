"""Scores from ranks, against ones counted by hand."""

import math

import pytest

from mmtrain.scores.retrieval import chance_recall_at, mean_rank, median_rank, perplexity, rank_in_shortlist, recall_at


@pytest.mark.parametrize(("k", "share"), [(1, 0.25), (5, 0.5), (10, 0.75), (11, 1.0)])
def test_recall_is_the_share_of_ranks_up_to_k(k: int, share: float) -> None:
    assert recall_at([1, 5, 10, 11], k) == share


def test_mean_and_median_rank_are_those_counted_by_hand() -> None:
    assert mean_rank([1, 2, 2, 7]) == 3.0
    assert median_rank([7, 1, 3]) == 3.0
    assert median_rank([7, 1, 3, 4]) == 3.5


@pytest.mark.parametrize("score", [lambda ranks: recall_at(ranks, 1), mean_rank, median_rank])
def test_no_query_and_a_rank_below_one_are_refused(score: object) -> None:
    with pytest.raises(ValueError, match="at least one query"):
        score([])
    with pytest.raises(ValueError, match="ranks count from 1"):
        score([0, 3])


def test_recall_at_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="from 1"):
        recall_at([1], 0)


def test_perplexity_is_the_exponential_of_the_mean_loss() -> None:
    assert perplexity(0.0, 3) == 1.0
    assert perplexity(4 * math.log(50), 4) == pytest.approx(50)  # as lost as a choice among fifty


def test_perplexity_of_a_model_that_is_sure_and_wrong_is_infinite_and_no_overflow() -> None:
    assert perplexity(1e6, 10) == math.inf
    assert math.isfinite(perplexity(700.0, 1))


def test_the_rank_in_a_shortlist_counts_those_that_are_as_good() -> None:
    assert rank_in_shortlist([0.1, 0.9, 0.5], 1) == 1
    assert rank_in_shortlist([0.1, 0.9, 0.5], 0) == 3
    assert rank_in_shortlist([0.5, 0.9, 0.5], 2) == 3  # a tie counts as lost


def test_right_candidates_do_not_compete() -> None:
    assert rank_in_shortlist([0.9, 0.8, 0.7, 0.95], {1, 2}) == 3
    assert rank_in_shortlist([0.9, 0.9, 0.9], [0, 1, 2]) == 1
    assert rank_in_shortlist([math.nan, 0.9, 0.1], 1) == 2  # what is no number may be better
    assert rank_in_shortlist([math.nan, 0.9, 0.1], 0) == 3


def test_chance_is_that_of_random_rankings() -> None:
    assert [chance_recall_at(k, 1, 8) for k in (1, 5, 10)] == [1 / 8, 5 / 8, 1.0]
    assert chance_recall_at(2, 2, 4) == pytest.approx(1 - 2 / 4 * 1 / 3)
    assert chance_recall_at(5, 5, 5) == chance_recall_at(3, 3, 5) == 1.0
