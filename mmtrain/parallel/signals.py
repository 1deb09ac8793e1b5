"""Signals that ask a run to save and end: acted on at a step boundary by all ranks, before training at once. No torch.

Until training begins a rank may stand in a native call (a rendezvous, a barrier) where Python runs no handler. The
interpreter's C handler then writes to a pipe, and a thread that reads it ends the process: there is nothing to save.
"""

import os
import signal
import threading
import time
from collections.abc import Iterable
from types import FrameType

from mmtrain.io.command import ExitCode
from mmtrain.io.console import print_error

POLL_SECONDS = 0.1


class Signals:
    """What came of the signals that this process listens for; a second one changes nothing."""

    def __init__(self, *, speaks: bool = True) -> None:
        """`speaks` says whether this process names the signal that ends it: of all ranks one does."""
        self.received = 0  # number of the first that came; 0: none
        self._speaks, self._numbers = speaks, set[int]()
        self._pipe: tuple[int, int] | None = None

    def listen_for(self, names: Iterable[str]) -> None:
        """From now on each of these signals ends the process, with `RESUMABLE`; must be called in the main thread."""
        self._numbers = {signal.Signals[name] for name in names}
        reader, writer = self._pipe = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._end_on_signal, args=(reader,), daemon=True, name="signals").start()
        for number in self._numbers:
            signal.signal(number, self._remember)

    def defer(self) -> None:
        """From now on the signals are only remembered in `received`, for all ranks to agree on at a step boundary."""
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            (_, writer), self._pipe = self._pipe, None
            os.write(writer, b"\0")  # forked processes hold the pipe too: its end would not reach the thread
            os.close(writer)

    def wait(self, seconds: float) -> None:
        """Wait so long, or until a signal has come."""
        deadline = time.monotonic() + seconds
        while not self.received and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number

    def _end_on_signal(self, reader: int) -> None:
        while (number := os.read(reader, 1)) and self._pipe is not None:
            if number[0] in self._numbers:
                if self._speaks:
                    print_error("mmtrain", f"ended by signal {name_of(number[0])} before training")
                os._exit(ExitCode.RESUMABLE)
        os.close(reader)


def name_of(number: int) -> str:
    """SIGTERM and the like."""
    return signal.Signals(number).name
