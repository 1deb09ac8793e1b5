"""Retry policy: exponential backoff with jitter, Retry-After, a bound on tries and on time. No torch, no threads.

A try ends by the time-outs of what it calls (sockets, `mmtrain.io.object_store`), never by being abandoned: a try that
lives on could write into what a later one has made.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from random import uniform
from typing import TypeVar

from mmtrain.io.errors import RetriesExhaustedError, TransientError

Result = TypeVar("Result")


def is_transient(error: Exception) -> bool:
    """Whether another try may succeed, as what raised `error` said itself."""
    return isinstance(error, TransientError)


@dataclass(frozen=True)
class RetryPolicy:
    """How often and after which pauses a failing action is tried again."""

    retries: int | None = 4  # after the first try; None: until the deadline
    backoff_seconds: float = 0.5  # before the first of them
    growth: float = 2.0  # of the pause, from each to the next
    jitter: float = 0.25  # share by which a pause is longer or shorter: many clients do not come back at one moment
    max_pause_seconds: float = 60.0
    deadline_seconds: float | None = None  # no try begins later than that after the first

    def call(
        self,
        action: Callable[[], Result],
        name: str,
        *,
        retry_on: Callable[[Exception], bool] = is_transient,
        on_retry: Callable[[str], None] | None = None,
    ) -> Result:
        """The result of `action`, called again while it raises what `retry_on` accepts; other errors pass through.

        Each call is a try of its own and must start from nothing. `on_retry` gets a sentence before each pause.
        Raises RetriesExhaustedError naming `name` and the last failure.
        """
        started, pause, num_tries = time.monotonic(), self.backoff_seconds, 0
        while True:
            num_tries += 1
            try:
                return action()
            except Exception as error:
                if not retry_on(error):
                    raise
                wait = min(
                    max(pause * uniform(1 - self.jitter, 1 + self.jitter), _asked_for(error)), self.max_pause_seconds
                )
                if self._is_over(num_tries, time.monotonic() + wait - started):
                    tries = "1 try" if num_tries == 1 else f"{num_tries} tries"
                    message = f"{name} could not be read in {tries}: {describe_error(error)}"
                    raise RetriesExhaustedError(message, num_tries, error) from error
                if on_retry is not None:
                    on_retry(f"{name}: try {num_tries} failed ({describe_error(error)}); again in {wait:.1f} s")
            time.sleep(wait)
            pause *= self.growth

    def _is_over(self, num_tries: int, seconds: float) -> bool:
        if self.deadline_seconds is not None and seconds > self.deadline_seconds:
            return True
        return self.retries is not None and num_tries > self.retries


def describe_error(error: Exception) -> str:
    """What an error says, with its kind where it is not one of ours."""
    if isinstance(error, TransientError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _asked_for(error: Exception) -> float:
    return error.retry_after_seconds if isinstance(error, TransientError) else 0.0
