"""The cache: bounded, filled once, and whole whatever happens to those who fill it."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from mmtrain.io.atomic import temporary_name
from mmtrain.io.cache import BoundedCache
from mmtrain.io.errors import TooLargeError
from mmtrain.io.locks import try_lock


def writes(content: bytes, made: list[bytes] | None = None):
    def fill(file: BinaryIO) -> None:
        file.write(content)
        if made is not None:
            made.append(content)

    return fill


def read(cache: BoundedCache, key: str, content: bytes, **options: object) -> bytes:
    with open(cache.open(key, writes(content), **options), "rb") as file:
        return file.read()


def entries(folder: Path) -> list[int]:
    return [entry.stat().st_size for entry in os.scandir(folder / "entries")]


def test_the_bound_holds_and_what_was_used_longest_ago_goes(tmp_path: Path) -> None:
    cache, made = BoundedCache(tmp_path, 1000), []

    def ask(number: int) -> None:
        content = f"entry-{number:02d}".encode() * 30
        os.close(cache.open(f"{number}", writes(content, made)))

    for number in range(40):
        ask(number)
        ask(0)
        assert sum(entries(tmp_path)) <= 1000
    assert made.count(b"entry-00" * 30) == 1 and made.count(b"entry-39" * 30) == 1
    ask(1)
    assert made.count(b"entry-01" * 30) == 2


def test_what_fills_an_entry_may_ask_for_any_others(tmp_path: Path) -> None:
    cache = BoundedCache(tmp_path, 10**6)

    def fill(file: BinaryIO) -> None:
        for number in range(150):  # so many that any two locks which entries could share would meet
            os.close(cache.open(f"other-{number}", writes(b"other")))
        file.write(b"whole")

    os.close(cache.open("whole", fill))
    assert cache.holds("whole") and cache.holds("other-149")


def test_an_entry_that_many_ask_for_at_once_is_filled_once(tmp_path: Path) -> None:
    made, barrier = [], threading.Barrier(4)

    def ask(_: int) -> None:
        cache = BoundedCache(tmp_path, 10**6)
        barrier.wait()
        os.close(cache.open("x", lambda file: (made.append(1), time.sleep(0.05), file.write(b"x"))))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    assert len(made) == 1


def test_an_entry_larger_than_the_whole_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    cache = BoundedCache(tmp_path, 1000, limit_name="data.cache_bytes")
    with pytest.raises(TooLargeError, match=r"x is 2000 bytes long; set data.cache_bytes \(1000\)"):
        cache.open("x", writes(bytes(2000)))
    assert not entries(tmp_path) and not list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize("left", ["0", "", "some", "-5", None])
def test_a_total_that_a_crash_has_left_is_counted_anew(tmp_path: Path, left: str | None) -> None:
    cache = BoundedCache(tmp_path, 1000)
    os.close(cache.open("x", writes(bytes(700))))
    total = tmp_path / "total"
    total.unlink() if left is None else total.write_text(left)
    if left in ("", "some", None):  # nobody can tell: the very cache that is open counts
        os.close(cache.open("y", writes(bytes(700))))
        assert sum(entries(tmp_path)) <= 1000
    os.close(BoundedCache(tmp_path, 1000).open("z", writes(bytes(700))))
    assert sum(entries(tmp_path)) <= 1000


def test_what_dead_writers_have_left_is_swept_and_what_is_being_written_counts(tmp_path: Path) -> None:
    BoundedCache(tmp_path, 1000)
    dead, alive = temporary_name(tmp_path / "dead"), temporary_name(tmp_path / "alive")
    dead.write_bytes(bytes(900))
    alive.write_bytes(bytes(600))
    descriptor = os.open(alive, os.O_RDONLY)
    assert try_lock(descriptor)
    cache = BoundedCache(tmp_path, 1000)
    assert not dead.exists() and alive.exists()
    os.close(cache.open("x", writes(bytes(500))))
    os.close(cache.open("y", writes(bytes(600))))  # makes room: beside the one being written there is none
    assert entries(tmp_path) == [600] and alive.exists()
    os.close(descriptor)
    BoundedCache(tmp_path, 1000)
    assert not alive.exists()


def test_an_entry_of_another_size_than_is_known_is_filled_anew(tmp_path: Path) -> None:
    cache = BoundedCache(tmp_path, 1000)
    assert read(cache, "x", b"torn") == b"torn"
    assert read(cache, "x", b"whole!", num_bytes=6) == b"whole!"
    assert read(cache, "x", b"unused", num_bytes=6) == b"whole!"
    BoundedCache(tmp_path, 1000)
    assert int((tmp_path / "total").read_text()) == 6


def test_a_failed_fill_leaves_nothing_and_its_late_writes_reach_nobody(tmp_path: Path) -> None:
    cache, late = BoundedCache(tmp_path, 1000), []

    def fail(file: BinaryIO) -> None:
        late.append(os.dup(file.fileno()))
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.open("x", fail)
    assert not cache.holds("x") and not list(tmp_path.glob(".*.partial"))
    descriptor = cache.open("x", writes(b"whole"))
    os.pwrite(late[0], b"LATE LATE", 0)
    assert os.pread(descriptor, 100, 0) == b"whole" and read(cache, "x", b"") == b"whole"
    os.close(descriptor)
    os.close(late[0])


def test_links_in_the_folder_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "total").symlink_to(tmp_path / "precious")
    os.close(BoundedCache(folder, 1000).open("x", writes(b"entry")))
    assert (tmp_path / "precious").read_text() == "mine"
