"""Locks: who holds one, who waits, and what ends it."""

import os
from pathlib import Path

import pytest

from mmtrain.io.locks import LockHeldError, RecordLock, byte_lock, file_lock


def in_child(work) -> int:
    """The exit code of `work` in a forked process: what it returns, 99 where it raises."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            code = int(work())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def owner_of(path: Path) -> str:
    try:
        RecordLock(path, "child").release()
    except LockHeldError as held:
        return held.owner
    return ""


def test_a_record_lock_is_of_one_process_and_says_whose(tmp_path: Path) -> None:
    lock = RecordLock(tmp_path / "lock", "node1, process 7")
    assert lock.is_held  # to look into the file here would let go of it
    assert in_child(lambda: owner_of(tmp_path / "lock") == "node1, process 7") == 1
    lock.release()
    lock.release()
    assert in_child(lambda: owner_of(tmp_path / "lock") == "") == 1


def test_a_forked_process_does_not_keep_a_record_lock(tmp_path: Path) -> None:
    lock, (here, there) = RecordLock(tmp_path / "lock", "parent"), os.pipe()
    pid = os.fork()
    if not pid:
        os.close(there)
        os.read(here, 1)
        os._exit(0)
    lock.release()
    assert in_child(lambda: owner_of(tmp_path / "lock") == "") == 1
    os.close(there)
    os.waitpid(pid, 0)
    os.close(here)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_a_file_lock_is_shared_or_waited_for(tmp_path: Path, first: bool, second: bool) -> None:
    def take() -> bool:
        try:
            with file_lock(tmp_path / "lock", shared=second, timeout_seconds=0.0):
                return True
        except LockHeldError:
            return False

    with file_lock(tmp_path / "lock", shared=first):
        assert in_child(take) == (first and second)
    assert in_child(take) == 1


def test_bytes_are_locked_one_by_one(tmp_path: Path) -> None:
    here, there = os.pipe()
    with byte_lock(tmp_path / "locks", 5):
        pid = os.fork()
        if not pid:
            with byte_lock(tmp_path / "locks", 2**59):  # another one: no waiting
                os.write(there, b"a")
            with byte_lock(tmp_path / "locks", 5):
                os.write(there, b"b")
            os._exit(0)
        assert os.read(here, 1) == b"a"
        os.set_blocking(here, False)
        with pytest.raises(BlockingIOError):
            os.read(here, 1)
    os.waitpid(pid, 0)
    assert os.read(here, 1) == b"b"
    os.close(here)
    os.close(there)
