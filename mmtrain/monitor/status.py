"""How a run stands and how it ended, for whoever started it: exit codes of ranks do not survive their launchers.

RUN_DIR/status.json is replaced whole, by the first rank while it runs. Whichever rank knows first that the run ends
writes why, to RUN_DIR/endings as well: that file is made once for each attempt, so a rank that afterwards finds only
that another is gone does not write over the cause. A process that was killed leaves "running".
"""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mmtrain.io.atomic import atomic_open, atomic_write
from mmtrain.io.documents import DocumentError, read_json_object
from mmtrain.io.text import redact
from mmtrain.parallel.launch import Launch, Preempted, cause_of

LOG = logging.getLogger("mmtrain.monitor")
STATUS = "status.json"
ENDINGS = "endings"
BEAT_SECONDS = 10.0  # a running run says at least so often where it stands, if a step is not longer


@dataclass(frozen=True)
class Status:
    """What RUN_DIR/status.json says."""

    state: str  # running, completed, preempted or failed
    reason: str  # one sentence
    step: int  # optimizer steps done
    num_steps: int  # optimizer steps wanted
    attempt: int  # how often the run was started in this folder before
    can_resume: bool  # whether starting the same command again may help: false where it was refused, or is complete
    updated: str  # ISO time
    host: str  # of who wrote this
    pid: int


def read_status(run_dir: Path) -> Status | None:
    """What the last attempt in `run_dir` said; None where there was none, or its file is damaged, which is said."""
    try:
        status = Status(**read_json_object(run_dir / STATUS))
        return replace(status, attempt=int(status.attempt))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (DocumentError, TypeError, ValueError) as fault:
        LOG.warning("%s of an earlier attempt is passed over: %s", run_dir / STATUS, fault)
        return None


class RunStatus:
    """This rank's word on the run; `step` is where it stands, kept by whoever counts the steps."""

    def __init__(self, run_dir: Path, launch: Launch, *, attempt: int, num_steps: int) -> None:
        self.run_dir, self.attempt, self.num_steps, self.step = run_dir, attempt, num_steps, 0
        self._launch, self._is_first = launch, launch.rank == 0
        self._last_beat = -BEAT_SECONDS

    def running(self, step: int, *, at_once: bool = False) -> None:
        """The run stands after `step` steps; the first rank writes it down if it has not for a while, or `at_once`."""
        self.step = step
        if not self._is_first or (time.monotonic() - self._last_beat < BEAT_SECONDS and not at_once):
            return
        self._last_beat = time.monotonic()
        with _worth_a_warning():
            self._replace(self._now("running", f"step {step} of {self.num_steps} is done", can_resume=True))
            # Another rank may have written an ending in between; one that is not whole yet is still to come there.
            if (ending := self._read_ending()) is not None:
                self._replace(ending)

    def end(self, state: str, reason: str, *, can_resume: bool) -> bool:
        """Write how this attempt ended, unless a rank did before; whether this was the first word on it."""
        status = self._now(state, redact(reason), can_resume=can_resume)
        with _worth_a_warning():
            self._ending.parent.mkdir(exist_ok=True)
            try:
                with atomic_open(self._ending, overwrite=False) as file:
                    file.write(_as_json(status).encode())
            except FileExistsError:
                return False
            self._replace(status)
        return True

    @contextmanager
    def telling(self, refusals: tuple[type[Exception], ...]) -> Iterator[None]:
        """What ends the run inside is written down; nothing is caught. The run is complete when nothing does."""
        try:
            yield
        except Preempted as ended:
            self.end("preempted", str(ended), can_resume=True)
            raise
        except BaseException as error:
            # What was refused will be refused again; a lost rank or an error of the machine may not come back.
            self.end("failed", cause_of(error, self._launch, refusals), can_resume=not isinstance(error, refusals))
            raise
        if self._is_first:
            past = f"; the run stands after step {self.step}" if self.step > self.num_steps else ""
            self.end("completed", f"all {self.num_steps} steps are done{past}", can_resume=False)

    @property
    def _ending(self) -> Path:
        return self.run_dir / ENDINGS / f"attempt-{self.attempt:04d}.json"

    def _now(self, state: str, reason: str, *, can_resume: bool) -> Status:
        return Status(
            state,
            reason,
            step=self.step,
            num_steps=self.num_steps,
            attempt=self.attempt,
            can_resume=can_resume,
            updated=datetime.now(UTC).isoformat(timespec="milliseconds"),
            host=self._launch.node,
            pid=os.getpid(),
        )

    def _read_ending(self) -> Status | None:
        try:
            return Status(**read_json_object(self._ending))
        except (OSError, DocumentError, TypeError):
            return None

    def _replace(self, status: Status) -> None:
        # A running status is written anew in seconds; only an ending has to outlive the machine.
        atomic_write(self.run_dir / STATUS, _as_json(status), durable=status.state != "running")


def _as_json(status: Status) -> str:
    return json.dumps(asdict(status), indent=1) + "\n"


@contextmanager
def _worth_a_warning() -> Iterator[None]:
    """A status that cannot be written ends no run and hides no reason for an ending."""
    try:
        yield
    except OSError as fault:
        LOG.warning("%s could not be written: %s", STATUS, fault)
