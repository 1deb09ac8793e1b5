"""Work spread over processes whose results come back in the order of the tasks, however many processes there are."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from types import TracebackType
from typing import TypeVar

from mmtrain.data.index import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_AHEAD = 4  # per process; results wait for their turn in memory


def default_processes() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Processes for two kinds of work: some whose results are wanted in order, some that only has to be done.

    With one process the work is done in this one. DataError where a process dies.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._done: list[Future[object]] = []

    def __enter__(self) -> "Workers":
        # spawn, not fork: the progress display runs a thread, and a fork of a threaded process may hang.
        context = multiprocessing.get_context("spawn")
        many = self._processes > 1
        self._pool = ProcessPoolExecutor(self._processes, context, _end_with_parent) if many else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise DataError("a worker process died (out of memory?); try again with fewer --processes") from error

    def in_order(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """`work(task)` for each task, in the order of the tasks; both must pickle."""
        if self._pool is None:
            yield from map(work, tasks)
            return
        waiting: deque[Future[Result]] = deque()
        for task in tasks:
            waiting.append(self._pool.submit(work, task))
            if len(waiting) == self._processes * TASKS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def begin(self, work: Callable[[Task], Result], task: Task) -> None:
        """Have this done at some time; `finished` tells what came of it."""
        done: Future[Result] = Future()
        if self._pool is None:
            done.set_result(work(task))
        else:
            done = self._pool.submit(work, task)
        self._done.append(done)

    def finished(self, *, wait: bool = False) -> list[object]:
        """Results of what was begun and is done by now, in the order of beginning; with `wait`, of all of it."""
        ready = [one for one in self._done if wait or one.done()]
        self._done = [one for one in self._done if one not in ready]
        return [one.result() for one in ready]


def run_in_order(work: Callable[[Task], Result], tasks: Iterable[Task], processes: int) -> Iterator[Result]:
    """`work(task)` for each task, in the order of the tasks; one process works in this one."""
    with Workers(processes) as workers:
        yield from workers.in_order(work, tasks)


def _end_with_parent() -> None:
    """A worker waits for tasks on a pipe whose other end its siblings hold too: nothing else would end it."""
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("only a worker process has a parent to watch")

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
