"""A run that hangs says where every rank stands and ends: one that waits for ever costs as much as one that works."""

import faulthandler
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mmtrain.config.schema import SurvivalConfig
from mmtrain.io.command import ExitCode
from mmtrain.io.console import print_error
from mmtrain.monitor.status import RunStatus

STACKS = "stacks"
POLLS = 20  # looks at the clock within the time allowed
GRACE_SECONDS = 5.0  # after its stacks a rank waits so long: the others hang too, and are to say where


class Watchdog:
    """Ends this process with all its stacks when what it is busy with takes longer than the config allows.

    The thread that waits needs Python's lock; should one that hangs hold it, faulthandler's own timer, which does not,
    dumps and ends the process a little later.
    """

    def __init__(self, plan: SurvivalConfig, status: RunStatus, rank: int) -> None:
        self.plan, self.status, self.rank = plan, status, rank
        self._has_stepped = False
        self._over, self._since, self._allowed = "the start", time.monotonic(), self._seconds("the start")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> "Watchdog":
        """Watch from now on, if the config sets a time."""
        if self.plan.step_timeout_seconds > 0:
            self._since = time.monotonic()
            self._thread.start()
        return self

    def stop(self) -> None:
        """Watch no longer."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    @contextmanager
    def over(self, what: str) -> Iterator[None]:
        """The time for `what` begins now, and for whatever follows it when it is done."""
        self._begin(what)
        try:
            yield
        finally:
            self._begin("what comes between steps")

    def _begin(self, what: str) -> None:
        self._over, self._since, self._allowed = what, time.monotonic(), self._seconds(what)

    def _seconds(self, what: str) -> float:
        """What `what` may take: a step once the allowance, anything else more, and so the first step of a process."""
        is_usual = what.startswith("step") and self._has_stepped
        self._has_stepped = self._has_stepped or what.startswith("step")
        return self.plan.step_timeout_seconds * (1.0 if is_usual else self.plan.slow_phase_factor)

    def _watch(self) -> None:
        pause = self.plan.step_timeout_seconds / POLLS
        while not self._ended.wait(pause):
            faulthandler.dump_traceback_later(self._allowed + pause + 2 * GRACE_SECONDS, exit=True)
            if time.monotonic() - self._since > self._allowed:
                self._abort()

    def _abort(self) -> None:
        folder = self.status.run_dir / STACKS
        sentence = (
            f"watchdog: rank {self.rank} was over {self._over} for more than {self._allowed:g} s "
            f"(survival.step_timeout_seconds); where every thread stood is in {folder}"
        )
        faulthandler.dump_traceback(all_threads=True)
        try:
            folder.mkdir(exist_ok=True)
            with (folder / f"rank-{self.rank}.txt").open("w") as file:
                print(sentence, file=file, flush=True)
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as fault:
            print_error("mmtrain", f"{folder} could not be written: {fault}")
        self.status.end("failed", sentence, can_resume=True)
        print_error("mmtrain", sentence)
        time.sleep(GRACE_SECONDS)
        os._exit(ExitCode.RESUMABLE)  # nothing that hangs can be wound up
