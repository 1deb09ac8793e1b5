"""Work spread over processes whose results come back in the order of the tasks, however many processes there are."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from mmtrain.data.index import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_AHEAD = 4  # per process; results wait for their turn in memory


def default_processes() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_in_order(work: Callable[[Task], Result], tasks: Iterable[Task], processes: int) -> Iterator[Result]:
    """`work(task)` for each task, in the order of the tasks; one process works in this one.

    `work` and the tasks must pickle. DataError where a process dies.
    """
    if processes == 1:
        yield from map(work, tasks)
        return
    # spawn, not fork: the progress display runs a thread, and a fork of a threaded process may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)
    try:
        yield from _in_order(pool, work, tasks, processes * TASKS_AHEAD)
    except BrokenProcessPool as error:
        raise DataError("a worker process died (out of memory?); try again with fewer --processes") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, work: Callable[[Task], Result], tasks: Iterable[Task], num_ahead: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    for task in tasks:
        waiting.append(pool.submit(work, task))
        if len(waiting) == num_ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _end_with_parent() -> None:
    """A worker waits for tasks on a pipe whose other end its siblings hold too: nothing else would end it."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker process has a parent to watch"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
