"""What looks after a run while it goes, in one hand for the loop."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from mmtrain.monitor.health import Health, Sampled
from mmtrain.monitor.pace import Pace
from mmtrain.monitor.status import RunStatus
from mmtrain.monitor.watchdog import Watchdog
from mmtrain.records import StepReport


@dataclass(frozen=True)
class Oversight:
    """Status for who started it, a watchdog for what hangs, a look at its health and at slow nodes."""

    status: RunStatus
    watchdog: Watchdog
    health: Health
    pace: Pace

    def over(self, what: str) -> AbstractContextManager[None]:
        """While the run is over `what`: `step N`, or something that may take longer."""
        return self.watchdog.over(what)

    def stepped(self, step: int, report: StepReport, stream: Sampled) -> bool:
        """After a step; whether its loss leapt so that the run is to go back. Every rank must call it."""
        self.status.running(step)
        self.pace.look(step)
        return self.health.look(step, report, stream)
