"""No torn file is ever read as whole: every write, sync and rename fails once, or is where the writer is killed."""

import errno
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import BinaryIO

import pytest

from data_tools.fetch import fetch_file
from data_tools.pack import Sample, write_shard
from data_tools.records import Record
from data_tools.rows import Url
from data_tools.workshop import Workshop
from mmtrain.data.index import describe_shard, read_manifest, read_sidecar
from mmtrain.data.manifest import write_manifest
from mmtrain.io.atomic import atomic_folder, atomic_open, atomic_write, remove_temporaries
from mmtrain.io.cache import BoundedCache
from mmtrain.io.errors import RetriesExhaustedError, TransientError
from mmtrain.io.locks import LockHeldError, RecordLock
from mmtrain.io.retry import RetryPolicy
from mmtrain.monitor.log import RunLog, read_rows
from tests.unit.data_tools.test_fetch import FAST
from tests.unit.io.injected import Fault, injected, run_killed

NUM_RUNS = 200  # of a cache among kills, failures and late writers
MOST_CALLS = 200
OLD, NEW = b"old " * 500, b"new, and longer " * 500


@dataclass(frozen=True)
class Write:
    """One way in which this program writes, and what must hold whenever it is looked at."""

    prepare: Callable[[Path], object]
    work: Callable[[Path], object]
    check: Callable[[Path], bool]  # whether the new content is there; asserts that it or the old one is whole
    overwrites: bool = True


def _either(path: Path) -> bool:
    content = path.read_bytes()
    assert content in (OLD, NEW), f"{path} is torn: {len(content)} bytes"
    return content == NEW


def _new_or_none(path: Path) -> bool:
    return path.exists() and _either(path)


def _fill_folder(folder: Path) -> None:
    with atomic_folder(folder / "made") as made:
        for name in ("a", "b"):
            with open(made / name, "wb") as file:
                file.write(NEW)


def _whole_folder(folder: Path) -> bool:
    if not (folder / "made").exists():
        return False
    assert [_either(folder / "made" / name) for name in ("a", "b")] == [True, True]
    return True


def _pack(folder: Path) -> None:
    entry = write_shard(folder / "set-000000.tar", [Sample(f"{n:08d}", {"txt": NEW}) for n in range(3)])
    write_manifest(folder, [entry], source="new", settings=None, statistics=None)


def _whole_set(folder: Path) -> bool:
    if not (folder / "manifest.json").exists():
        return False
    (entry,) = read_manifest(folder).shards
    assert describe_shard(folder / entry.name, entry.num_samples) == entry
    assert read_sidecar(folder / entry.name).num_samples == 3
    return True


def _prepare_chunk(folder: Path) -> None:
    workshop = Workshop(folder)
    with workshop.new_images(0) as images:
        images.write(NEW)
    workshop.write_records(0, [Record(0, "a.png", extension="png", num_bytes=len(NEW))])


def _whole_chunk(folder: Path) -> bool:
    workshop = Workshop(folder)
    if not workshop.has_chunk(0):
        return False
    assert _either(workshop.images_path(0)) and workshop.read_records(0)[0].num_bytes == len(NEW)
    return True


def _fill_cache(folder: Path) -> None:
    os.close(BoundedCache(folder / "cache", 10**6).open("key", lambda file: file.write(NEW)))


def _whole_entry(folder: Path) -> bool:
    return all([_either(path) for path in (folder / "cache" / "entries").glob("*")] or [False])


def _cut_log(folder: Path) -> None:
    with RunLog(folder, writes=True) as log:
        log.cut(lambda row: row["step"] <= 2)


def _start_log(folder: Path) -> None:
    (folder / "log.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1, 5)))


def _whole_log(folder: Path) -> bool:
    steps = [row["step"] for row in read_rows(folder)]
    assert steps in ([1, 2], [1, 2, 3, 4])
    return steps == [1, 2]


def _append_only(folder: Path) -> None:
    with atomic_open(folder / "x", overwrite=False) as file:
        file.write(NEW)


def _download(folder: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/faults/table.csv", NEW)
    fetch_file(Url("memory://faults/table.csv"), folder, FAST)


def _whole_copies(folder: Path) -> bool:
    return all([_either(path) for path in folder.glob("*-table.csv")] or [False])


def _old_file(folder: Path) -> object:
    return (folder / "x").write_bytes(OLD)


def _nothing(folder: Path) -> None:
    pass


WRITES = {
    "a file in place of another": Write(
        _old_file, lambda folder: atomic_write(folder / "x", NEW), lambda f: _either(f / "x"), 1
    ),
    "a file without fsync": Write(
        _old_file,
        lambda folder: atomic_write(folder / "x", NEW, durable=False),
        lambda folder: _either(folder / "x"),
    ),
    "a new file": Write(_nothing, _append_only, lambda folder: _new_or_none(folder / "x"), overwrites=False),
    "a folder": Write(_nothing, _fill_folder, _whole_folder, overwrites=False),
    "a shard and its manifest": Write(_nothing, _pack, _whole_set),
    "a chunk of a build": Write(_nothing, _prepare_chunk, _whole_chunk),
    "a cache entry": Write(_nothing, _fill_cache, _whole_entry),
    "a log that is cut": Write(_start_log, _cut_log, _whole_log),
    "a copy of an input": Write(_nothing, _download, _whole_copies),
}


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name.endswith(".partial")]


def folders(tmp_path: Path) -> Iterator[Path]:
    for number in range(MOST_CALLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        yield folder
    raise AssertionError("the work never ends without a fault")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("name", WRITES)
def test_each_call_that_fails_leaves_the_old_or_the_new_and_no_rest(name: str, number: int, tmp_path: Path) -> None:
    write, num_faults = WRITES[name], 0
    for nth, folder in enumerate(folders(tmp_path)):
        write.prepare(folder)
        with injected(Fault(nth, number=number)) as fault:
            try:
                write.work(folder)
            except OSError as error:
                assert error.errno == number
        is_new = write.check(folder)
        assert temporaries(folder) == []
        if not fault.hit:
            assert is_new
            break
        num_faults += 1
        if write.overwrites or not is_new:
            write.work(folder)  # once there is room again
        assert write.check(folder)
    assert num_faults >= 3


@pytest.mark.parametrize("name", WRITES)
def test_a_writer_killed_at_each_call_leaves_the_old_or_the_new(name: str, tmp_path: Path) -> None:
    write, num_kills = WRITES[name], 0
    for nth, folder in enumerate(folders(tmp_path)):
        write.prepare(folder)
        was_killed = run_killed(lambda folder=folder: write.work(folder), nth)
        is_new = write.check(folder)
        if not was_killed:
            assert is_new
            break
        num_kills += 1
        if write.overwrites or not is_new:
            write.work(folder)  # what the killed one has left is in nobody's way
        assert write.check(folder)
        for place in (folder, folder / "cache"):
            remove_temporaries(place)
        assert [path for path in temporaries(folder) if path.is_file()] == []
    assert num_kills >= 3


def test_a_claim_ends_with_its_process_wherever_that_is_killed(tmp_path: Path) -> None:
    for nth in range(6):
        run_killed(lambda: RecordLock(tmp_path / "lock", "a killed one"), nth)
        RecordLock(tmp_path / "lock", "the next").release()
    held = RecordLock(tmp_path / "lock", "this one")

    def take() -> None:
        with pytest.raises(LockHeldError, match="this one"):
            RecordLock(tmp_path / "lock", "another")

    assert not run_killed(take, MOST_CALLS)
    held.release()


def content_of(key: int) -> bytes:
    """What the entry of a key must be, of a size that is its own."""
    return Random(key).randbytes(50 + 37 * key)


class World:
    """A cache among processes that are killed, disks that are full, and writers that come too late."""

    MAX_BYTES = 2500

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random, self.late = folder, Random(seed), []
        self.cache = BoundedCache(folder, self.MAX_BYTES)

    def fill(self, key: int) -> Callable[[BinaryIO], None]:
        def fill(file: BinaryIO) -> None:
            for piece in (content_of(key)[:40], content_of(key)[40:]):
                file.write(piece)

        return fill

    def read(self) -> None:
        key = self.random.randrange(20)
        descriptor = self.cache.open(f"key-{key}", self.fill(key))
        assert os.pread(descriptor, 10**6, 0) == content_of(key)
        os.close(descriptor)

    def read_with_known_size(self) -> None:
        key = self.random.randrange(20)
        descriptor = self.cache.open(f"key-{key}", self.fill(key), num_bytes=len(content_of(key)))
        assert os.pread(descriptor, 10**6, 0) == content_of(key)
        os.close(descriptor)

    def fail(self) -> None:
        number = self.random.choice([errno.ENOSPC, errno.EIO, errno.EDQUOT])
        with injected(Fault(self.random.randrange(12), number=number)):
            try:
                self.read()
            except OSError as error:
                assert error.errno == number

    def kill(self) -> None:
        run_killed(self.read, self.random.randrange(12))

    def kill_at_start(self) -> None:
        run_killed(lambda: BoundedCache(self.folder, self.MAX_BYTES), self.random.randrange(4))

    def start_again(self) -> None:
        self.cache = BoundedCache(self.folder, self.MAX_BYTES)
        assert temporaries(self.folder) == []
        assert int((self.folder / "total").read_text()) == sum(path.stat().st_size for path in self.entries())

    def retry_late(self) -> None:
        """A try that fails midway and goes on writing when a later one has entered its file."""
        key, tries = self.random.randrange(20), []

        def fill(file: BinaryIO) -> None:
            tries.append(os.dup(file.fileno()))
            file.write(content_of(key)[: 10 * len(tries)])
            file.flush()
            if len(tries) < 3:
                raise TransientError("cut off")
            file.seek(0)
            self.fill(key)(file)

        policy = RetryPolicy(self.random.randrange(4), 0.0)
        try:
            os.close(policy.call(lambda: self.cache.open(f"key-{key}", fill), "x"))
        except RetriesExhaustedError:
            assert len(tries) < 3
        for descriptor in tries[:2]:
            os.pwrite(descriptor, b"LATE" * 100, 0)
        for descriptor in tries:
            os.close(descriptor)

    def spoil_total(self) -> None:
        (self.folder / "total").write_bytes(self.random.choice([b"", b"x", b"12x"]))

    def race(self) -> None:
        """Another process reads the same keys, and may be killed at it."""
        seed, nth = self.random.random(), self.random.choice([*range(20), MOST_CALLS])
        here, there = os.pipe()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                other = World(self.folder, int(seed * 10**6))
                os.write(there, b"!")
                with injected(Fault(nth, kill=True)):
                    for _ in range(3):
                        other.read()
                code = 0
            finally:
                os._exit(code)
        os.read(here, 1)
        for _ in range(3):
            self.read()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 1
        os.close(here)
        os.close(there)

    def entries(self) -> list[Path]:
        return list((self.folder / "entries").iterdir())

    def check(self) -> None:
        whole = {len(content_of(key)): content_of(key) for key in range(20)}
        for path in self.entries():
            content = path.read_bytes()
            assert whole.get(len(content)) == content, f"{path.name} is torn"
        assert sum(path.stat().st_size for path in self.entries()) <= self.MAX_BYTES


ACTIONS = (
    World.read, World.read, World.read_with_known_size, World.fail, World.fail, World.kill, World.kill_at_start,
    World.start_again, World.retry_late, World.spoil_total, World.race,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(NUM_RUNS))
def test_a_cache_is_whole_and_bounded_whatever_happens(seed: int, tmp_path: Path) -> None:
    world = World(tmp_path, seed)
    for number, action in enumerate(world.random.choices(ACTIONS, k=8)):
        action(world)
        try:
            world.check()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, after action {number} ({action.__name__}): {error}") from error
    world.start_again()
    for _ in range(3):
        world.read()
    world.check()


def test_the_faults_are_those_that_are_meant(tmp_path: Path) -> None:
    with injected(Fault(0)) as fault, pytest.raises(OSError, match="No space"):
        atomic_write(tmp_path / "x", NEW)
    assert fault.hit and os.listdir(tmp_path) == []
    assert run_killed(lambda: atomic_write(tmp_path / "x", NEW), 1) and len(temporaries(tmp_path)) == 1
    with injected(Fault(99)) as fault:
        atomic_write(tmp_path / "x", NEW)
    assert fault.count >= 6 and io.BytesIO((tmp_path / "x").read_bytes()).read() == NEW
