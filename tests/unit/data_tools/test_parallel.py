"""Work spread over processes."""

import os

import pytest

from data_tools.parallel import run_in_order
from mmtrain.data.index import DataError


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_tasks(processes):
    assert list(run_in_order(abs, range(-50, 0), processes)) == list(range(50, 0, -1))


def test_an_error_of_a_task_reaches_the_caller():
    with pytest.raises(ValueError, match="invalid literal"):
        list(run_in_order(int, ["1", "two"], 2))


def test_a_process_that_dies_ends_in_one_sentence():
    with pytest.raises(DataError, match="--processes"):
        list(run_in_order(os._exit, [1], 2))
