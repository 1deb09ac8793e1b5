"""Which nodes are named, from what all of them said."""

from mmtrain.cluster.node import NodeReport
from mmtrain.cluster.verdict import RankResult, judge_reports, judge_results

NODES = ("a", "b", "c")
PLACE = "a:29500"


def report(node: str, *faults: str, **versions: str) -> NodeReport:
    return NodeReport(node, faults, {"torch": "2.13", **versions})


def reports(*given: NodeReport) -> dict[str, NodeReport]:
    return {one.node: one for one in given}


def right(rank: int) -> RankResult:
    return RankResult(rank, None, (), False)


def test_nodes_that_are_alike_and_lack_nothing_are_fit() -> None:
    assert judge_reports(NODES, reports(*map(report, NODES)), PLACE) == {}


def test_a_node_that_did_not_come_is_named() -> None:
    assert judge_reports(NODES, reports(report("a"), report("c")), PLACE) == {"b": "it did not reach a:29500 on a"}


def test_where_nobody_came_the_place_is_bad() -> None:
    assert judge_reports(NODES, reports(report("a")), PLACE) == {"a": "none of the other 2 nodes reached a:29500 on it"}


def test_of_two_nodes_the_one_that_did_not_come_is_named() -> None:
    assert list(judge_reports(NODES[:2], reports(report("a")), PLACE)) == ["b"]


def test_what_a_node_lacks_and_where_it_differs_stand_in_one_line() -> None:
    said = reports(report("a"), report("b", "2 GPUs answer; wanted 8", "no disk", torch="2.12"), report("c"))
    assert judge_reports(NODES, said, PLACE) == {
        "b": "2 GPUs answer; wanted 8; no disk; torch is 2.12; the others have 2.13"
    }


def test_the_one_that_differs_from_most_is_named_even_if_it_is_the_first() -> None:
    assert list(judge_reports(NODES, reports(report("a", torch="1"), report("b"), report("c")), PLACE)) == ["a"]


def test_where_two_camps_are_equal_the_first_node_is_right() -> None:
    assert list(judge_reports(NODES[:2], reports(report("a", torch="1"), report("b")), PLACE)) == ["b"]


def test_a_version_that_only_one_node_lacks_is_a_difference() -> None:
    said = reports(report("a", apex="1"), report("b", apex="1"), report("c"))
    assert judge_reports(NODES, said, PLACE) == {"c": "apex is absent; the others have 1"}


def test_right_sums_on_every_rank_name_nobody() -> None:
    assert judge_results(NODES[:2], {"a": [right(0), right(1)], "b": [right(2), right(3)]}) == {}


def test_a_rank_that_all_see_wrong_is_named_by_its_node() -> None:
    seen = {"a": [RankResult(0, None, (3,), False)], "b": [RankResult(1, None, (3,), False)]}
    seen["c"] = [RankResult(2, None, (3,), False), RankResult(3, None, (3,), False)]
    assert judge_results(NODES, seen) == {"c": "what rank 3 adds to an all-reduce is wrong on most ranks"}


def test_a_rank_that_alone_sees_wrong_sums_is_named() -> None:
    seen = {"a": [right(0)], "b": [RankResult(1, None, (0, 2), False)], "c": [right(2)]}
    assert judge_results(NODES, seen) == {"b": "rank 1 gets wrong sums where most ranks get right ones"}


def test_a_fault_of_its_own_is_named_and_not_those_who_waited_for_it() -> None:
    seen = {"a": [RankResult(0, None, (), True)], "b": [RankResult(1, "its device does not compute: x", (), False)]}
    assert judge_results(NODES[:2], seen) == {"b": "rank 1: its device does not compute: x"}


def test_a_node_without_a_result_is_named() -> None:
    assert judge_results(NODES[:2], {"a": [RankResult(0, None, (), True)]}) == {
        "b": "b gave no result of the all-reduce"
    }


def test_where_all_only_waited_all_are_named() -> None:
    seen = {node: [RankResult(rank, None, (), True)] for rank, node in enumerate(NODES)}
    assert set(judge_results(NODES, seen)) == set(NODES)
