"""Object stores: files behind http, fsspec and commands, whole or with an error that says whether to try again."""

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from mmtrain.io.errors import (
    AddressRefusedError,
    NotFoundError,
    RetriesExhaustedError,
    StorageError,
    TooLargeError,
    TransientError,
)
from mmtrain.io.http import HttpClient
from mmtrain.io.object_store import UNKNOWN_VERSION, FileVersion, ObjectStore
from mmtrain.io.pipe import stream_command
from mmtrain.io.retry import RetryPolicy
from tests.unit.io.site import CONTENT, serve_site

STORE = ObjectStore(HttpClient(2.0))
HASTY = ObjectStore(HttpClient(0.1))


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with serve_site() as (address, _):
        yield address


@pytest.fixture(scope="module", autouse=True)
def bucket() -> None:
    system = fsspec.filesystem("memory")
    for name, content in (("a #1%.tar", CONTENT), ("b.tar", b"b"), ("c.txt", b"c"), ("sub/d.tar", b"d")):
        system.pipe(f"/store-bucket/{name}", content)


class Slow(AbstractFileSystem):
    """A store that hangs until it is released, and knows no time-outs."""

    protocol = "slow"
    release = threading.Event()

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: object) -> bytes:
        Slow.release.wait(10)
        return b"too late"

    def info(self, path: str, **options: object) -> dict[str, object]:
        return {"name": path, "size": 8, "type": "file"}


class Broken(AbstractFileSystem):
    """A store that raises what it likes."""

    protocol = "broken"

    def cat_file(self, path: str, *words: object, **options: object) -> bytes:
        raise {"denied": PermissionError("no"), "gone": FileNotFoundError("x")}.get(path, KeyError("token=abc"))

    def info(self, path: str, **options: object) -> dict[str, object]:
        return {"name": path, "size": 100, "type": "file"}


class Unreachable(AbstractFileSystem):
    """A store that connects where it is made, as those of ftp and ssh do."""

    protocol = "unreachable"
    cachable = False

    def __init__(self, *words: object, **options: object) -> None:
        super().__init__()
        raise ConnectionRefusedError(111, "at https://u:abc@h")


fsspec.register_implementation("unreachable", Unreachable, clobber=True)
fsspec.register_implementation("slow", Slow, clobber=True)
fsspec.register_implementation("broken", Broken, clobber=True)


def downloaded(url: str, store: ObjectStore = STORE) -> bytes:
    file = io.BytesIO()
    store.download(url, file)
    return file.getvalue()


def test_the_same_bytes_come_from_everywhere(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    monkeypatch.setattr("mmtrain.io.object_store.STORE_PIECE_BYTES", 1000)
    for url in (f"{site}/file", "memory://store-bucket/a #1%.tar", f"file://{tmp_path}/x"):
        assert STORE.read(url) == downloaded(url) == CONTENT
        assert STORE.read_range(url, 5, 50).content == CONTENT[5:50]
        assert STORE.read(url, len(CONTENT)) == CONTENT
        with pytest.raises(TooLargeError, match=f"more than {len(CONTENT) - 1} bytes"):
            STORE.read(url, len(CONTENT) - 1)


def test_versions_tell_files_apart(site: str) -> None:
    assert STORE.version(f"{site}/tagged") == FileVersion(len(CONTENT), '"v1"')
    assert STORE.version(f"{site}/status/405") == STORE.version("pipe:cat x") == UNKNOWN_VERSION
    before = STORE.version("memory://store-bucket/b.tar")
    fsspec.filesystem("memory").pipe("/store-bucket/b.tar", b"B")
    assert before.num_bytes == 1 and STORE.version("memory://store-bucket/b.tar") != before


def test_folders_of_stores_are_listed(site: str) -> None:
    found = STORE.list_files("memory://store-bucket/", ".tar")
    assert [name.rpartition("/")[2] for name in found] == ["a #1%.tar", "b.tar"]
    assert STORE.list_files(site, ".tar") == STORE.list_files("memory://no-bucket", ".tar") == []


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory://store-bucket/none", NotFoundError),
        ("broken://gone", NotFoundError),
        ("broken://denied", StorageError),
        ("broken://other", TransientError),
        ("unreachable://host/x", TransientError),
        ("nostore://bucket/x", StorageError),
        ("pipe:echo", AddressRefusedError),
    ],
)
def test_a_failure_says_whether_to_try_again(url: str, kind: type[StorageError]) -> None:
    with pytest.raises(kind) as caught:
        downloaded(url)
    assert isinstance(caught.value, TransientError) == (kind is TransientError)
    assert "abc" not in str(caught.value)


def test_chains_are_followed_only_where_allowed() -> None:
    with pytest.raises(StorageError, match="chains"):
        ObjectStore(allow_chains=False).read("simplecache::memory://store-bucket/c.txt")


def test_a_store_without_time_outs_is_bounded_and_its_late_bytes_reach_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmtrain.io.retry.time.sleep", lambda seconds: None)
    file = io.BytesIO()
    with pytest.raises(RetriesExhaustedError, match=r"x could not be read in 2 tries: no answer within 0.1 s"):
        RetryPolicy(1).call(lambda: HASTY.download("slow://x", file), "x")
    Slow.release.set()
    assert file.getvalue() == b""
    Slow.release.clear()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("exit 3", "exit code 3$"),
        ("echo first >&2; echo the reason >&2; exit 1", "exit code 1: the reason"),
        ("echo half; false", "exit code 1"),
        ("false | cat", "exit code 1"),
        ("nosuchcommand", "exit code 127"),
        ("kill -9 $$", "exit code -9"),
        ("printf 'token=%s\\e[2J' abc >&2; exit 1", r"token=\*\*\*"),
        ("sleep 5", "writes nothing for 0.1 s"),
        ("echo x; sleep 5", "writes nothing for 0.1 s"),
        ("exec >&-; sleep 5", "does not end within 0.1 s"),
    ],
)
def test_a_command_that_fails_or_hangs_is_an_error(command: str, message: str) -> None:
    with pytest.raises(TransientError, match=message) as caught:
        list(stream_command(command, 0.1 if "sleep" in command else 5.0))
    assert str(caught.value).isprintable()


def test_a_command_gives_all_it_writes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CONTENT * 300)
    store = ObjectStore(allow_pipe=True)
    assert downloaded(f"pipe:cat {tmp_path}/x", store) == CONTENT * 300
    assert downloaded(f"pipe:cat {tmp_path}/x | head -c 5", store) == CONTENT[:5]
    assert store.read("pipe:true") == b"" and store.read_range("pipe:true", 0, 5) is None


def test_a_command_that_nobody_reads_to_its_end_is_ended(tmp_path: Path) -> None:
    pieces = stream_command(f"yes & echo $! > {tmp_path}/pid; wait", 5.0)
    next(pieces)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        next(pieces)
    pieces.close()
    status, deadline = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat"), time.monotonic() + 60

    def is_alive() -> bool:
        try:
            return status.read_text().split()[2] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return False

    while is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive()
