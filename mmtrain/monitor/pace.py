"""How fast each node computes by itself: in a step all ranks wait for the slowest, so no step tells which that is."""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median
from time import perf_counter

import torch

from mmtrain.config.schema import SurvivalConfig
from mmtrain.parallel.device import synchronize
from mmtrain.parallel.meeting import told_by_all

LOG = logging.getLogger("mmtrain.monitor")
WINDOW = 5  # measurements of a rank whose median is looked at: one slow moment is no slow node
TRIES = 5  # of the probe; the quickest counts, what disturbed the others is not this node's pace
PROBE_SIZE = {"cpu": 192, "cuda": 2048}  # width of a square matrix: about a millisecond


class Pace:
    """Times the same small computation on every rank now and then; the first rank says which node falls behind."""

    def __init__(self, plan: SurvivalConfig, device: torch.device, *, node: str, rank: int) -> None:
        self.plan, self.device, self.node, self.rank = plan, device, node, rank
        self._seconds: deque[float] = deque(maxlen=WINDOW)
        self._factor: torch.Tensor | None = None

    def look(self, step: int) -> None:
        """After a step: measure and compare, if it is time to; every rank must call it."""
        if not self.plan.pace_every or step % self.plan.pace_every:
            return
        self._seconds.append(self.measure())
        said = told_by_all((self.node, median(self._seconds)))
        if self.rank == 0:
            for name, excess in behind(by_node(said), self.plan.slow_share).items():
                LOG.warning("step %d: %s computes %.0f%% slower than the median of all", step, name, 100 * excess)

    def measure(self) -> float:
        """Seconds of the probe on this rank, without waiting for any other."""
        if self._factor is None:
            size = PROBE_SIZE[self.device.type]
            self._factor = torch.full((size, size), 1.0 / size, device=self.device)
        quickest = float("inf")
        with torch.no_grad():
            for _ in range(TRIES):
                synchronize(self.device)
                started, product = perf_counter(), self._factor
                for _ in range(4):
                    product = product @ self._factor
                synchronize(self.device)
                quickest = min(quickest, perf_counter() - started)
        return quickest


def by_node(said: Sequence[tuple[str, float]]) -> dict[str, float]:
    """The slowest rank of each node; the ranks themselves where there is one node only."""
    if len({node for node, _ in said}) == 1:
        return {f"rank {rank}": seconds for rank, (_, seconds) in enumerate(said)}
    found: dict[str, float] = {}
    for node, seconds in said:
        found[f"node {node}"] = max(seconds, found.get(f"node {node}", 0.0))
    return found


def behind(seconds: Mapping[str, float], slow_share: float) -> dict[str, float]:
    """Those that take longer than the median by more than `slow_share` of it, and by which share."""
    # Of two nodes the quicker one is what the other is measured by.
    middle = sorted(seconds.values())[(len(seconds) - 1) // 2]
    excess = {name: each / middle - 1.0 for name, each in seconds.items()}
    return {name: share for name, share in excess.items() if share > slow_share}
