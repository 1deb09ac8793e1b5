"""Ranks that share out the held-out pairs find what one process finds."""

import pytest

from tests.helpers import run_ranks
from tests.unit.engine.scored import brute_force, scored_on_a_rank

BATCH_SIZES = (4, 7)  # with the second the last rank's batch is padding but for some


@pytest.mark.parametrize("captions_each", [1, 3])
def test_scores_of_two_ranks_are_those_of_the_whole_split_on_both(captions_each: int) -> None:
    wanted = brute_force(captions_each)
    for reports in run_ranks(2, scored_on_a_rank, BATCH_SIZES, captions_each):
        assert len({report.retrieved for report in reports}) == 1 and len(reports[0].retrieved) == 5
        for report in reports:
            assert report.scores.keys() == wanted.keys()
            for name, scores in wanted.items():
                assert report.scores[name] == pytest.approx(scores, rel=1e-6), name
