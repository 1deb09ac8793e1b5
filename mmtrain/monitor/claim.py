"""A run folder belongs to one live run: the first rank locks it, and the system lets go when that process ends."""

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from mmtrain.config.load import ConfigError
from mmtrain.io.atomic import remove_temporaries
from mmtrain.io.locks import LockHeldError, RecordLock
from mmtrain.monitor.status import ENDINGS, RunStatus, read_status
from mmtrain.parallel.launch import Launch
from mmtrain.parallel.meeting import told_by_first

LOG = logging.getLogger("mmtrain.monitor")
LOCK = "lock"


class Claim:
    """A locked run folder, for as long as this object or its process lives."""

    def __init__(self, run_dir: Path, node: str) -> None:
        """ConfigError where another live run holds the folder, or nothing can be written into it."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            # Forked readers do not inherit it: it ends with this process and not with the last child.
            self._lock = RecordLock(run_dir / LOCK, f"{node}, process {os.getpid()}, since {started}")
        except LockHeldError as held:
            raise ConfigError(
                [f"run_dir {run_dir} is held by a run that is alive ({held.owner}); end it, or name another"]
            ) from None
        except OSError as fault:
            raise ConfigError([f"run_dir {run_dir} cannot be written to ({fault.strerror}); name another"]) from None
        if not self._lock.is_held:
            LOG.warning("the file system of %s knows no locks: a second run in it would not be noticed", run_dir)

    def release(self) -> None:
        """Let go of the folder."""
        self._lock.release()


def open_status(run_dir: Path, launch: Launch, num_steps: int) -> tuple[RunStatus, Claim | None]:
    """The status of a new attempt in `run_dir`, which the first rank holds from now on; every rank must call it.

    ConfigError on every rank where the first could not get the folder.
    """
    claim, fault, attempt = None, None, 0
    if launch.rank == 0:
        try:
            claim = Claim(run_dir, launch.node)
            for folder in (run_dir, run_dir / ENDINGS):
                remove_temporaries(folder)
            attempt = _count_attempts(run_dir)
        except ConfigError as refused:
            fault = refused.faults
    fault, attempt = told_by_first((fault, attempt))
    if fault:
        raise ConfigError(fault)
    status = RunStatus(run_dir, launch, attempt=attempt, num_steps=num_steps)
    status.running(0, at_once=True)
    return status, claim


def _count_attempts(run_dir: Path) -> int:
    """How many attempts stood in the folder before this one; a killed one left no ending, a wiped one no status."""
    before = read_status(run_dir)
    ended = [int(path.stem.rpartition("-")[2]) for path in (run_dir / ENDINGS).glob("attempt-*.json")]
    return max([before.attempt if before else -1, *ended]) + 1
