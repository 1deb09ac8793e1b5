"""Reader processes: micro-batches read ahead, in order, by processes that never outlive the one they read for."""

import atexit
import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from itertools import count

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mmtrain.data.faults import DataError, Fault
from mmtrain.records import Batch

READ_AHEAD_STEPS = 2  # optimizer steps that the readers are ahead of the training
MAX_READ_AHEAD = 16  # micro-batches per reader, to bound their memory
PR_SET_PDEATHSIG = 1  # from linux/prctl.h

Read = Callable[[int], tuple[Batch, list[Fault]]]  # the micro-batch of that number, and what is missing from it


def read_ahead(read: Read, first: int, *, num_workers: int, per_step: int) -> Iterator[tuple[Batch, list[Fault]]]:
    """Micro-batches `first`, `first` + 1, ... without end, read by `num_workers` processes; DataError if one dies.

    The order and the content do not depend on the number of processes. Close the iterator to end them.
    """
    ahead = -(-READ_AHEAD_STEPS * per_step // num_workers)
    loader = DataLoader(
        _MicroBatches(read),
        batch_size=None,
        sampler=_CountFrom(first),
        num_workers=num_workers,
        collate_fn=_as_it_is,
        worker_init_fn=partial(_settle, os.getpid()),
        prefetch_factor=min(max(ahead, 2), MAX_READ_AHEAD),
        multiprocessing_context="fork",  # the table of samples is shared, not copied
    )
    with _child_signals_kept():
        items = iter(loader)
    # Should nobody close the iterator: before torch's own end, which would wait for readers that heed no signal.
    end = atexit.register(partial(_end, items))
    try:
        for images_BCHW, arrays, faults in items:
            yield Batch(images_BCHW, *(torch.from_numpy(array) for array in arrays)), faults
    # A reader that dies breaks its queue or the sockets behind it, whichever is asked first.
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
        if str(error).startswith("Caught "):  # raised by the code of a reader that lives
            raise
        raise DataError(
            f"a reader process ended unexpectedly ({error}); often the machine, the job or /dev/shm ran out of memory: "
            f"lower data.num_workers ({num_workers}), or set it to 0 to read in the training process"
        ) from error
    finally:
        end()
        atexit.unregister(end)


def _end(items: Iterator) -> None:
    """Ask the readers to stop, and stop those that hang."""
    items._shutdown_workers()
    for reader in items._workers:
        if reader.is_alive():
            reader.kill()


@contextmanager
def _child_signals_kept() -> Iterator[None]:
    """Undo torch's handler of SIGCHLD, which raises a reader's death out of any line of the training."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


class _CountFrom:
    def __init__(self, first: int) -> None:
        self._first = first

    def __iter__(self) -> Iterator[int]:
        return count(self._first)


class _MicroBatches(Dataset):
    """Micro-batches by number. Only the images travel through shared memory: for small arrays a pipe is faster."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def __getitem__(self, number: int) -> tuple[torch.Tensor, list[np.ndarray], list[Fault]]:
        batch, faults = self._read(number)
        images_BCHW, *rest = (getattr(batch, field.name) for field in fields(batch))
        return images_BCHW, [tensor.numpy() for tensor in rest], faults


def _as_it_is(item: object) -> object:
    return item


def _settle(parent: int, worker: int) -> None:
    """One thread per reader, and death with the parent, however that dies."""
    torch.set_num_threads(1)
    # Ctrl-C and the end of a job's time reach the whole group, but the trainer may want another batch before it saves.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Linux can end them at once; elsewhere torch's own watch does it within seconds.
    if hasattr(ctypes.CDLL(None), "prctl"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
