"""Memory that readers and trainer share: slots for micro-batches, made once and used again and again.

A slot is used again when the trainer has dropped the last tensor over its images (the records were copied),
and, where there is a GPU, when the copies that were queued on the current stream by then are done. Whoever
keeps more batches than `max_lent` gets copies beyond that, so that no reader ever waits for a slot that stays lent.
"""

import mmap
import weakref
from collections import deque

import torch

from mmtrain.data.slot import Layout, Slot
from mmtrain.parallel.device import pin, unpin
from mmtrain.records import Batch


class Ring:
    """`num_slots` slots in one piece of anonymous shared memory; forked processes see the same bytes.

    Anonymous: it does not count against the size of /dev/shm, and is gone with the last process.
    """

    def __init__(self, layout: Layout, num_slots: int, max_lent: int) -> None:
        self._memory = mmap.mmap(-1, layout.num_bytes * num_slots)
        view, size = memoryview(self._memory), layout.num_bytes
        self.slots = [Slot(layout, view[number * size : (number + 1) * size]) for number in range(num_slots)]
        self._max_lent, self._num_lent = max_lent, 0
        self._free = deque(range(num_slots))
        self._leaving: deque[tuple[int, torch.cuda.Event]] = deque()  # dropped, but a copy to the GPU may still run
        self._pinned = False

    def pin(self) -> None:
        """Lock the memory once, so that a GPU copies from it by itself."""
        pin(self._memory)
        self._pinned = True

    def unpin(self) -> None:
        """Undo `pin`."""
        if self._pinned:
            unpin(self._memory)
            self._pinned = False

    def take_free(self) -> int | None:
        """A slot that a reader may fill, None while there is none."""
        while self._leaving and self._leaving[0][1].query():
            self._set_free(self._leaving.popleft()[0])
        return self._free.popleft() if self._free else None

    def lend(self, number: int, *, trim: bool) -> Batch:
        """The batch in a slot; its images are over the slot's memory, or copied where too many are lent already."""
        slot = self.slots[number]
        if self._num_lent >= self._max_lent:
            batch = slot.batch(slot.images_BHWC.copy(), trim=trim)
            self._free.append(number)
            return batch
        # A view of its own: it dies with the last tensor over it.
        images_BHWC = slot.images_BHWC.view()
        self._num_lent += 1
        weakref.finalize(images_BHWC, self._give_back, number).atexit = False
        return slot.batch(images_BHWC, trim=trim)

    def _give_back(self, number: int) -> None:
        if self._pinned:
            event = torch.cuda.Event()
            event.record()
            self._leaving.append((number, event))
        else:
            self._set_free(number)

    def _set_free(self, number: int) -> None:
        self._num_lent -= 1
        self._free.append(number)
