"""Reader processes: micro-batches read ahead into shared memory, by processes that never outlive the trainer.

The trainer hands out numbers and slots through one pipe, from which whichever reader is free takes the next;
readers answer through another. Both carry records shorter than what a pipe writes at once, so none is torn and
no lock is held by a reader that dies. The order and the content of what comes out depend on no reader.
"""

import atexit
import logging
import os
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from mmap import mmap

import numpy as np
import torch

from mmtrain.data.faults import DataError
from mmtrain.data.ring import Ring
from mmtrain.data.samples import BadSample
from mmtrain.data.slot import Layout, Slot
from mmtrain.parallel.children import settle_child
from mmtrain.records import Batch

LOG = logging.getLogger("mmtrain.data")
READ_AHEAD_STEPS = 2  # optimizer steps that the readers are ahead of the training
MAX_READ_AHEAD = 16  # micro-batches per reader, to bound their memory
RECORD = struct.Struct("<qqq")  # number or FAILED, slot, reader
FAILED = -1
NOTE_BYTES = 16_384  # of what a reader says when it fails
NOTHING = -1
END_SECONDS = 5.0
MOST_DEATHS = 3  # of readers while no batch comes out

Mark = Callable[[int], None]
Read = Callable[[int, Slot, Mark], None]  # fill a slot with the micro-batch of that number; mark each sample before


@dataclass(frozen=True)
class Reader:
    """One process, and the pipe that closes when it ends."""

    number: int
    pid: int
    alive: int  # descriptor


class Readers:
    """`num_workers` processes that read micro-batches `first`, `first` + 1, ... ; DataError when one fails or dies.

    `name_of` says which sample is meant by a number, for the message. `per_step` micro-batches may be lent at once.
    """

    def __init__(
        self,
        read: Read,
        layout: Layout,
        *,
        first: int,
        num_workers: int,
        per_step: int,
        name_of: Callable[[int], str],
    ) -> None:
        ahead = min(max(READ_AHEAD_STEPS * per_step, 2 * num_workers), MAX_READ_AHEAD * num_workers)
        # Two steps may be lent: a trainer that takes the next still holds the last.
        self.ring = Ring(layout, ahead + 2 * per_step, max_lent=2 * per_step)
        self._read, self._name_of, self._num_workers = read, name_of, num_workers
        self._next_out = self._next_in = first
        self._ahead, self._trainer, self._closed = ahead, os.getpid(), False
        self._done: dict[int, int] = {}  # number -> slot
        self._marks = np.frombuffer(mmap(-1, 8 * num_workers), np.int64)  # the sample that each reader is reading
        self._note = mmap(-1, NOTE_BYTES * num_workers)
        self._asked: dict[int, int] = {}  # number -> slot of what no reader has answered yet
        self._died_at, self._num_deaths = first, 0
        self._start_all()
        atexit.register(self.close)
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            self.ring.pin()
        self._hand_out()

    def batches(self, *, trim: bool) -> Iterator[tuple[Batch, list[BadSample]]]:
        """The micro-batches in order, without end, and what of each cannot be used."""
        while True:
            while self._next_in not in self._done:
                self._hand_out()
                self._hear()
            slot = self._done.pop(self._next_in)
            self._next_in += 1
            bad = self.ring.slots[slot].bad()
            self._hand_out()
            yield self.ring.lend(slot, trim=trim), bad

    def close(self) -> None:
        """End the processes; batches that were lent stay good."""
        if self._closed or os.getpid() != self._trainer:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._end_all()
        self.ring.unpin()

    def _start_all(self) -> None:
        self._marks[:] = NOTHING
        self._tasks_out, self._tasks_in = os.pipe()
        self._answers_out, self._answers_in = os.pipe()
        self._readers = [self._start(number) for number in range(self._num_workers)]
        os.close(self._tasks_out)
        os.close(self._answers_in)
        self._poll = select.poll()
        for descriptor in (self._answers_out, *(reader.alive for reader in self._readers)):
            self._poll.register(descriptor, select.POLLIN)

    def _end_all(self) -> None:
        for reader in self._readers:
            os.kill(reader.pid, signal.SIGKILL)
        for reader in self._readers:
            os.waitpid(reader.pid, 0)
            os.close(reader.alive)
        os.close(self._tasks_in)
        os.close(self._answers_out)

    def _hand_out(self) -> None:
        while self._next_out - self._next_in < self._ahead and (slot := self.ring.take_free()) is not None:
            self._ask(self._next_out, slot)
            self._next_out += 1

    def _ask(self, number: int, slot: int) -> None:
        self._asked[number] = slot
        try:
            os.write(self._tasks_in, RECORD.pack(number, slot, NOTHING))
        except BrokenPipeError:
            return  # the last reader is gone, which `_hear` finds, and asks again

    def _hear(self) -> None:
        """Wait for an answer; DataError where a reader failed, or is gone for good."""
        ready = {descriptor for descriptor, _ in self._poll.poll()}
        answers = os.read(self._answers_out, RECORD.size * 64) if self._answers_out in ready else b""
        if answers:  # none is the end of the last reader
            for number, _, reader in RECORD.iter_unpack(answers):
                if number == FAILED:
                    self._raise_failure(reader)
                self._done[number] = self._asked.pop(number)
            return
        dead = [reader for reader in self._readers if reader.alive in ready]
        if dead:
            self._start_again_after(dead[0])

    def _raise_failure(self, number: int) -> None:
        kind, _, text = self._note[number * NOTE_BYTES : (number + 1) * NOTE_BYTES].rstrip(b"\0").partition(b"\n")
        said = text.decode(errors="replace")
        raise DataError(said) if kind == DataError.__name__.encode() else RuntimeError(f"a reader failed:\n{said}")

    def _start_again_after(self, reader: Reader) -> None:
        """New readers for all that was asked; DataError where readers die again and again and nothing comes out.

        Which record a dead one had taken is not known, and what it would have made depends on no reader: so all that
        has no answer is asked again, and the batches are those of an undisturbed run.
        """
        self._num_deaths = self._num_deaths + 1 if self._died_at == self._next_in else 1
        self._died_at = self._next_in
        sentence = self._death(reader)
        if self._num_deaths >= MOST_DEATHS:
            raise DataError(
                f"{sentence}; {self._num_deaths} have died since the last batch came out; SIGKILL often means "
                "that the machine or the job ran out of memory: lower data.num_workers, or set it to 0 to read in the "
                "training process"
            )
        LOG.warning("%s; the readers are started again", sentence)
        self._end_all()
        self._start_all()
        for number, slot in sorted(self._asked.items()):
            self._ask(number, slot)

    def _death(self, reader: Reader) -> str:
        status = os.waitstatus_to_exitcode(os.waitpid(reader.pid, 0)[1])
        self._readers.remove(reader)
        self._poll.unregister(reader.alive)
        os.close(reader.alive)
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
        sample = int(self._marks[reader.number])
        where = "between two samples" if sample == NOTHING else f"while it read {self._name_of(sample)}"
        return f"reader process {reader.number + 1} of data.num_workers ({self._num_workers}) {how} {where}"

    def _start(self, number: int) -> Reader:
        alive, held = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            os.close(held)
            return Reader(number, pid, alive)
        status = 1
        try:
            os.close(alive)
            os.close(self._tasks_in)
            os.close(self._answers_out)
            settle_child(self._trainer)
            self._serve(number)
            status = 0
        finally:
            os._exit(status)  # nothing of the trainer's own ending is a reader's business

    def _serve(self, number: int) -> None:
        mark = partial(self._marks.__setitem__, number)
        while record := os.read(self._tasks_out, RECORD.size):
            task, slot, _ = RECORD.unpack(record)
            try:
                self._read(task, self.ring.slots[slot], mark)
            except Exception as error:
                self._say(number, error)
                return
            mark(NOTHING)
            os.write(self._answers_in, RECORD.pack(task, slot, number))

    def _say(self, number: int, error: Exception) -> None:
        text = str(error) if isinstance(error, DataError) else traceback.format_exc()[-NOTE_BYTES // 2 :]
        said = f"{type(error).__name__}\n{text}".encode(errors="backslashreplace")[:NOTE_BYTES]
        self._note[number * NOTE_BYTES : number * NOTE_BYTES + len(said)] = said
        os.write(self._answers_in, RECORD.pack(FAILED, NOTHING, number))
        time.sleep(END_SECONDS)  # the trainer ends it; were it gone first, its death would be told and not its words
