"""Slots that readers and trainer share, and readers that fail."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtrain.data.faults import DataError
from mmtrain.data.index import index_path, scan_shard, write_index
from mmtrain.data.manifest import ShardEntry, write_manifest
from mmtrain.data.ring import Ring
from mmtrain.data.slot import Layout, Slot
from mmtrain.data.workers import Mark, Readers
from tests.unit.data.made import open_stream, write_set

LAYOUT = Layout(size=2, image_size=4, text_length=8)


def number_filler(number: int, slot: Slot, mark: Mark) -> None:
    slot.fill(2 * number + np.arange(2))
    slot.images_BHWC[:] = number % 251


def open_readers(read: Callable[[int, Slot, Mark], None], num_workers: int = 2, per_step: int = 2) -> Readers:
    return Readers(
        read, LAYOUT, first=5, num_workers=num_workers, per_step=per_step, name_of=lambda sample: f"sample {sample}"
    )


def test_a_slot_is_used_again_only_when_the_last_tensor_over_it_is_gone():
    ring = Ring(LAYOUT, num_slots=1, max_lent=1)
    assert ring.take_free() == 0 and ring.take_free() is None
    batch = ring.lend(0, trim=True)
    part = batch.images_BCHW[0]
    del batch
    assert ring.take_free() is None
    del part
    assert ring.take_free() == 0


def test_batches_that_are_kept_are_copied_rather_than_overwritten_or_waited_for():
    readers = open_readers(number_filler)
    batches = readers.batches(trim=True)
    kept = [next(batches)[0] for _ in range(60)]
    for number, batch in enumerate(kept, 5):
        assert batch.places_B.tolist() == [2 * number, 2 * number + 1]
        assert (batch.images_BCHW == number).all()
    readers.close()
    assert (kept[-1].images_BCHW == 64).all()  # also after the readers are gone


def test_batches_come_in_order_however_long_each_took():
    def read(number: int, slot: Slot, mark: Mark) -> None:
        time.sleep(0.02 * (number % 3))
        number_filler(number, slot, mark)

    readers = open_readers(read, num_workers=3)
    batches = readers.batches(trim=True)
    assert [int(next(batches)[0].places_B[0]) for _ in range(12)] == [2 * number for number in range(5, 17)]
    readers.close()


def test_a_reader_killed_by_a_signal_is_named_with_the_sample_it_was_reading():
    def read(number: int, slot: Slot, mark: Mark) -> None:
        number_filler(number, slot, mark)
        if number == 9:
            mark(77)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests under nohup has it ignored
            os.kill(os.getpid(), signal.SIGHUP)

    readers = open_readers(read)
    batches = readers.batches(trim=True)
    with pytest.raises(DataError, match=r"reader process \d of .* ended by SIGHUP while it read sample 77"):
        for _ in range(9):
            next(batches)
    readers.close()


def test_a_reader_that_is_killed_once_is_started_again_and_the_batches_are_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    killed = tmp_path / "killed"

    def read(number: int, slot: Slot, mark: Mark) -> None:
        mark(number)
        if number in (9, 30) and not Path(f"{killed}-{number}").exists():
            Path(f"{killed}-{number}").touch()
            slot.images_BHWC[:] = 255  # half-written
            os.kill(os.getpid(), signal.SIGKILL)
        number_filler(number, slot, mark)

    readers = open_readers(read, num_workers=3)
    batches = readers.batches(trim=True)
    for number in range(5, 60):
        batch, bad = next(batches)
        assert batch.places_B.tolist() == [2 * number, 2 * number + 1] and bad == []
        assert (batch.images_BCHW == number).all()
    readers.close()
    assert len(caplog.messages) == 2
    assert "ended by SIGKILL while it read sample 9; the readers are started again" in caplog.messages[0]


def test_readers_do_not_hear_what_the_trainer_listens_for():
    def read(number: int, slot: Slot, mark: Mark) -> None:
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
        number_filler(number, slot, mark)

    before = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    try:
        readers = open_readers(read)
        assert next(readers.batches(trim=True))[0].places_B.tolist() == [10, 11]
        readers.close()
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize(("error", "kind"), [(DataError("turn data.train"), DataError), (KeyError("x"), RuntimeError)])
def test_what_a_reader_raises_is_raised_in_the_trainer(error: Exception, kind: type[Exception]):
    def read(number: int, slot: Slot, mark: Mark) -> None:
        raise error

    readers = open_readers(read)
    with pytest.raises(kind, match="turn data.train" if kind is DataError else "KeyError: 'x'"):
        next(readers.batches(trim=True))
    readers.close()


def test_the_key_of_the_sample_is_in_the_message_of_a_real_stream(good_set: Path, tokenizer_path: Path):
    stream = open_stream(good_set, tokenizer_path, num_workers=1)
    stream._reader.read = lambda samples, epochs, slot, mark: (mark(int(samples[0])), os.kill(os.getpid(), 9))
    first = int(stream.order.batch(0)[0])
    with pytest.raises(DataError, match=rf"SIGKILL while it read set-{first // 40:06d}.tar: k{first:05d};"):
        stream.take(4)
    stream.close()


def test_the_memory_of_a_slot_is_its_own():
    ring = Ring(LAYOUT, num_slots=3, max_lent=3)
    for number, slot in enumerate(ring.slots):
        number_filler(number, slot, lambda sample: None)
    for number in range(3):
        batch = ring.lend(number, trim=True)
        assert (batch.images_BCHW == number).all() and batch.places_B.tolist() == [2 * number, 2 * number + 1]
        assert batch.text_ids_BT.dtype == torch.int64


MEASURE = """
import sys, time
from pathlib import Path
from tests.unit.data.made import open_stream
memory = lambda name: int(Path("/proc/self/status").read_text().partition(name + ":")[2].split()[0]) / 1024
warm = open_stream(Path(sys.argv[2]), Path(sys.argv[3])); warm.take(4)
before, started = memory("VmRSS"), time.process_time()
stream = open_stream(Path(sys.argv[1]), Path(sys.argv[3]))
peak, kept, seconds = memory("VmHWM"), memory("VmRSS"), time.process_time() - started
for step in range(150):
    stream.restore(stream.state() | {"step": step * 397})
    stream.take(4)
print(seconds, peak - before, kept - before, memory("VmRSS") - kept, len(stream._sets.parts[0].table._open))
"""


@pytest.mark.long
def test_a_stream_over_a_hundred_thousand_shards_starts_in_seconds_and_stays_small(
    tmp_path: Path, good_set: Path, tokenizer_path: Path
):
    (tar,) = write_set(tmp_path / "one", 10).glob("*.tar")
    index, size = write_index(scan_shard(tar)), tar.stat().st_size
    folder = tmp_path / "many"
    folder.mkdir()
    names = [f"set-{number:06d}.tar" for number in range(100_000)]
    for number, name in enumerate(names):
        if number % 50_000 == 0:  # a file has only so many names
            tar, index = _copy(tar, folder / f"tar-{number}"), _copy(index, folder / f"index-{number}")
        os.link(tar, folder / name)
        os.link(index, index_path(folder / name))
    entries = [ShardEntry(name, 10, size, f"{number:064x}") for number, name in enumerate(names)]
    write_manifest(folder, entries, source=None, settings=None, statistics=None)
    words = [sys.executable, "-c", MEASURE, folder, good_set, tokenizer_path]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=200)
    seconds, peak, kept, to_read, num_open = map(float, done.stdout.split())
    print(f"{seconds:.1f} s of CPU time; MiB: {peak:.0f} at the peak, {kept:.0f} kept, {to_read:.0f} after 150 places")
    assert seconds < 20 and peak < 300 and kept < 100 and to_read < 40 and num_open <= 256


def _copy(path: Path, to: Path) -> Path:
    to.write_bytes(path.read_bytes())
    return to
