"""Who writes a rank's part of a save: a thread, for a run that waits, or a process of its own beside one that goes on.

A thread would now and then hold the interpreter's lock when the trainer wants it, and each time the step takes longer.
"""

import os
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint import Metadata

from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.checkpoint.manifest import Manifest
from mmtrain.checkpoint.staging import Parts, Staging
from mmtrain.checkpoint.write import Written, commit_and_tidy, write_rank
from mmtrain.parallel.children import settle_child
from mmtrain.parallel.device import Aside
from mmtrain.parallel.slices import Slice


class ThreadWriter:
    """Writes the tensors themselves: they must not change until the work is done."""

    def __init__(self, rank: int, keep: dict[str, int]) -> None:
        """`keep` says which older checkpoints stay once another stands: see `commit_and_tidy`."""
        self._rank, self._keep = rank, keep
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._table: Metadata | None = None
        self._parts: Parts = ()

    def lay_out(self, places: Sequence[Slice], table: Metadata | None) -> None:
        """Say what this rank will write in every save, and on the first rank where all ranks' rectangles lie."""
        self._table = table

    def take(self, parts: Parts) -> None:
        """Begin to take over these values."""
        self._parts = parts

    def wait_until_taken(self) -> None:
        """Return once they may change: the run that uses this writer waits until all is written."""

    def run(self, work: Callable[..., Any], *args: Any) -> Future:
        """Do something behind all that was asked for before."""
        return self._thread.submit(work, *args)

    def write(self, folder: Path) -> Future[Written]:
        """Write what was taken over to this rank's file under `folder`."""
        return self.run(write_rank, folder, self._parts, self._rank)

    def commit(self, folder: Path, manifest: Manifest, written: list[Written]) -> Future[None]:
        """Make a checkpoint of what all ranks have written; on the first rank."""
        return self.run(partial(commit_and_tidy, **self._keep), folder, manifest, self._table, written)


class ProcessWriter(ThreadWriter):
    """Copies the tensors while the next step computes, and lets a process write the copies.

    To be made before the run's own memory is: what a forked process has seen, it holds until it ends.
    """

    def __init__(self, rank: int, keep: dict[str, int]) -> None:
        super().__init__(rank, keep)
        self._staging = Staging()
        self._taken: Future[None] | None = None
        self._pool = self._start()

    def lay_out(self, places: Sequence[Slice], table: Metadata | None) -> None:
        super().lay_out(places, table)
        self._staging.reserve(places)
        self._ask(_lay_out, places, table)

    def take(self, parts: Parts) -> None:
        tensors, copies = ([tensor for _, tensor in several] for several in (parts, self._staging.parts))
        aside = Aside(tensors)
        if aside.is_on_gpu:
            self._staging.pin()
        self._taken = self.run(aside.copy, copies)

    def wait_until_taken(self) -> None:
        if self._taken is not None:
            self._taken.result()

    def write(self, folder: Path) -> Future[Written]:
        return self.run(self._ask, _write, folder, self._rank)

    def commit(self, folder: Path, manifest: Manifest, written: list[Written]) -> Future[None]:
        return self.run(self._ask, _commit, folder, manifest, written, self._keep)

    @property
    def process(self) -> int:
        """The process that writes, by its number."""
        return self._pool.submit(os.getpid).result()

    def _start(self) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(
            max_workers=1,
            mp_context=get_context("fork"),
            initializer=_begin,
            initargs=(os.getpid(), self._staging, self._table),
        )
        pool.submit(os.getpid).result()  # it is forked now, and not when it is first needed
        # Left to be collected, a pool closes its pipe in a thread of its own while the interpreter, at its end, writes
        # to it: the run would end with a traceback behind its sentence.
        weakref.finalize(self, pool.shutdown, wait=True)
        return pool

    def _ask(self, work: Callable[..., Any], *args: Any) -> Any:
        try:
            return self._pool.submit(work, *args).result()
        except BrokenProcessPool:
            self._pool = self._start()
            raise CheckpointError("the process that writes was ended from outside, as when memory runs out") from None


class _Desk:
    """What the process that writes has before it."""

    staging: Staging
    table: Metadata | None


def _begin(parent: int, staging: Staging, table: Metadata | None) -> None:
    """With what was laid out before it was forked, which one that takes another's place needs at once."""
    settle_child(parent)
    _Desk.staging, _Desk.table = staging, table


def _lay_out(places: Sequence[Slice], table: Metadata | None) -> None:
    _Desk.staging.find(places)
    _Desk.table = table


def _write(folder: Path, rank: int) -> Written:
    return write_rank(folder, _Desk.staging.parts, rank)


def _commit(folder: Path, manifest: Manifest, written: list[Written], keep: dict[str, int]) -> None:
    commit_and_tidy(folder, manifest, _Desk.table, written, **keep)
