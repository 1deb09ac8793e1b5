"""Reads that fail or hang are tried again, after longer and longer pauses; what cannot be had is named. No torch."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mmtrain.data.faults import DataError

LOG = logging.getLogger("mmtrain.data")
FIRST_PAUSE_SECONDS = 0.5  # doubled after each try
Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How long a read may take, and how often it is tried again."""

    retries: int = 4
    timeout_seconds: float = 120.0
    first_pause_seconds: float = FIRST_PAUSE_SECONDS

    def read(self, action: Callable[[], Result], name: str) -> Result:
        """What `action` gives; DataError naming `name` and the last failure once every try has failed."""
        pause = self.first_pause_seconds
        for attempt in range(self.retries + 1):
            try:
                return _Try(action).result(self.timeout_seconds)
            except FileNotFoundError as error:
                raise DataError(f"{name} does not exist") from error
            except Exception as error:  # a library of an object store raises what it likes
                failure = error
            if attempt < self.retries:
                LOG.warning("%s: try %d failed (%s); again in %g s", name, attempt + 1, _said(failure), pause)
                time.sleep(pause)
                pause *= 2
        raise DataError(f"{name} could not be read in {self.retries + 1} tries: {_said(failure)}") from failure


class _Try(Generic[Result]):
    """One try in a thread of its own, which is left behind when it hangs."""

    def __init__(self, action: Callable[[], Result]) -> None:
        self._action = action
        self._done: list[Result] = []
        self._failed: list[Exception] = []

    def result(self, timeout_seconds: float) -> Result:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        thread.join(timeout_seconds)
        if self._failed:
            raise self._failed[0]
        if not self._done:
            raise TimeoutError(f"no answer within data.read_timeout_seconds ({timeout_seconds:g})")
        return self._done[0]

    def _run(self) -> None:
        try:
            self._done.append(self._action())
        except Exception as error:  # handed to the thread that waits
            self._failed.append(error)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
