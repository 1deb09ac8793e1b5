"""Which nodes of a job are bad, from what all of them said. Plain values, no torch, no processes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmtrain.cluster.node import NodeReport

Blame = dict[str, str]  # why a node is bad, by its name


@dataclass(frozen=True)
class RankResult:
    """How the all-reduce looked from one rank."""

    rank: int
    fault: str | None  # of this rank itself, found before it met the others
    wrong: tuple[int, ...]  # ranks whose part of the sum was not what it must be
    is_alone: bool  # others did not come, or not in time


def judge_reports(nodes: Sequence[str], reports: Mapping[str, NodeReport], place: str) -> Blame:
    """The nodes that did not reach `place`, where the first of `nodes` waited, lack something, or differ.

    Where nobody of several got there, the place is at fault, and so is the first node.
    """
    silent = [node for node in nodes if node not in reports]
    if len(silent) == len(nodes) - 1 > 1:
        return {nodes[0]: f"none of the other {len(silent)} nodes reached {place} on it"}
    blame = {node: f"it did not reach {place} on {nodes[0]}" for node in silent}
    blame |= {node: "; ".join(report.faults) for node, report in reports.items() if report.faults}
    others = _odd_versions(nodes, reports)
    return {node: "; ".join(filter(None, (blame.get(node), others.get(node)))) for node in blame | others}


def _odd_versions(nodes: Sequence[str], reports: Mapping[str, NodeReport]) -> Blame:
    """The nodes that differ from most; where two camps are equal, from the one that comes first in `nodes`."""
    here = [reports[node] for node in nodes if node in reports]
    odd: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for report in here for name in report.versions):
        counts = Counter(report.versions.get(name, "absent") for report in here)
        usual, _ = counts.most_common(1)[0]
        for report in here:
            got = report.versions.get(name, "absent")
            if got != usual:
                odd.setdefault(report.node, []).append(f"{name} is {got}; the others have {usual}")
    return {node: "; ".join(words) for node, words in odd.items()}


def judge_results(nodes: Sequence[str], results: Mapping[str, Sequence[RankResult]]) -> Blame:
    """The nodes to which an all-reduce that failed or came out wrong points.

    A rank's own fault is its node's; what most ranks see wrong of a rank is that rank's; what few see, theirs. Nodes
    that only waited are named where nobody else is.
    """
    blame = {node: f"{node} gave no result of the all-reduce" for node in nodes if node not in results}
    ranks = {result.rank: node for node, found in results.items() for result in found}
    flat = [result for found in results.values() for result in found]
    for result in flat:
        if result.fault:
            blame.setdefault(ranks[result.rank], f"rank {result.rank}: {result.fault}")
    met = [result for result in flat if not result.fault and not result.is_alone]
    seen = Counter(rank for result in met for rank in result.wrong)
    guilty = {rank for rank, count in seen.items() if 2 * count > len(met)}
    for rank in sorted(guilty & set(ranks)):
        blame.setdefault(ranks[rank], f"what rank {rank} adds to an all-reduce is wrong on most ranks")
    for result in met:
        if set(result.wrong) - guilty:
            blame.setdefault(ranks[result.rank], f"rank {result.rank} gets wrong sums where most ranks get right ones")
    if not blame:
        blame = {ranks[one.rank]: "the all-reduce did not end in time" for one in flat if one.is_alone}
    return blame
