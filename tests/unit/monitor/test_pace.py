"""Which node is said to be slow."""

import logging

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmtrain.config.schema import SurvivalConfig
from mmtrain.monitor.pace import Pace, behind, by_node


def test_the_node_whose_slowest_rank_is_beyond_the_share_is_named() -> None:
    said = [("a", 1.0), ("a", 1.1), ("b", 1.0), ("b", 1.6), ("c", 1.2), ("c", 1.0)]
    assert by_node(said) == {"node a": 1.1, "node b": 1.6, "node c": 1.2}
    assert behind(by_node(said), 0.25) == {"node b": pytest.approx(1 / 3)}


def test_of_two_nodes_the_slower_is_measured_by_the_quicker() -> None:
    assert behind({"node a": 2.0, "node b": 1.0}, 0.25) == {"node a": 1.0}
    assert behind({"node a": 1.2, "node b": 1.0}, 0.25) == {}


def test_ranks_of_one_node_are_told_apart() -> None:
    assert by_node([("a", 1.0), ("a", 3.0)]) == {"rank 0": 1.0, "rank 1": 3.0}


def test_a_rank_alone_is_never_slow_and_looks_only_when_it_is_due(caplog: pytest.LogCaptureFixture) -> None:
    pace = Pace(SurvivalConfig(pace_every=3), torch.device("cpu"), node="a", rank=0)
    with caplog.at_level(logging.WARNING, "mmtrain"):
        for step in range(1, 10):
            pace.look(step)
    assert len(pace._seconds) == 3 and caplog.messages == []


def test_the_probe_is_a_few_hundred_million_operations() -> None:
    pace = Pace(SurvivalConfig(), torch.device("cpu"), node="a", rank=0)
    with FlopCounterMode(display=False) as counter:
        assert pace.measure() > 0
    assert 0 < counter.get_total_flops() < 500e6  # milliseconds on one core
