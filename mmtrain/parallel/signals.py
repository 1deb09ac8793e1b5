"""Signals that ask a run to save and end: remembered here, acted on at a step boundary by all ranks. Needs no torch."""

import signal
import time
from collections.abc import Iterable
from types import FrameType

POLL_SECONDS = 0.1


class Signals:
    """What came of the signals that this process listens for; a second one changes nothing."""

    def __init__(self) -> None:
        self.received = 0  # number of the first that came; 0: none

    def listen_for(self, names: Iterable[str]) -> None:
        """From now on each of these signals is only remembered; must be called in the main thread."""
        for name in names:
            signal.signal(signal.Signals[name], self._remember)

    def wait(self, seconds: float) -> None:
        """Wait so long, or until a signal has come."""
        deadline = time.monotonic() + seconds
        while not self.received and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number


def name_of(number: int) -> str:
    """SIGTERM and the like."""
    return signal.Signals(number).name
