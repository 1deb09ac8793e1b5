"""Hostile servers and caches: what is read is what the manifest lists, or one sentence that names the address."""

import json
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest

from data_tools.fetch import FetchRules, fetch
from data_tools.left_out import Unusable
from data_tools.pack import Sample, write_shard
from data_tools.rows import Url, locate
from mmtrain.config.schema import DataConfig
from mmtrain.data.faults import DataError, SampleError
from mmtrain.data.manifest import write_manifest
from mmtrain.data.places import Access
from mmtrain.data.shards import open_shards
from mmtrain.data.table import SampleTable

NUM_SAMPLES = 3
Answer = tuple[int, bytes, dict[str, str]]
Change = Callable[[str, bytes, Random], Answer | None]  # path, true content -> what is sent in its place


class Folder(BaseHTTPRequestHandler):
    """Serves a folder in ranges, with `change` between."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].lstrip("/")
        content = self.server.files.get(path)
        answer = self.server.change(path, content, self.server.random) if content is not None else (404, b"", {})
        status, body, headers = answer or self._true(content)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        if headers:
            self.close_connection = True

    do_HEAD = do_GET

    def _true(self, content: bytes) -> Answer:
        if "Range" not in self.headers:
            return 200, content, {"ETag": f'"{zlib.crc32(content)}"'}
        start, stop = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        part = content[start : stop + 1]
        return 206, part, {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(content)}"}

    def log_message(self, *words: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, address: object) -> None:
        pass


def make_set(folder: Path, words: str = "words") -> dict[str, bytes]:
    """The files of a set of one shard, by name."""
    folder.mkdir()
    samples = [Sample(f"{n:08d}", {"txt": f"{words} {n}".encode(), "bin": bytes(2000)}) for n in range(NUM_SAMPLES)]
    entry = write_shard(folder / "set-000000.tar", samples)
    write_manifest(folder, [entry], source=None, settings=None, statistics=None)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_set(tmp_path_factory.mktemp("hostile") / "set")


@pytest.fixture(scope="module")
def running() -> Iterator[Quiet]:
    server = Quiet(("127.0.0.1", 0), Folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server(running: Quiet, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Quiet:
    monkeypatch.setattr("mmtrain.io.retry.time.sleep", lambda seconds: None)
    running.files, running.random, running.change = dict(files), Random(0), lambda *_: None
    return running


def captions(server: Quiet, cache: Path, *, name: str = "", **data: object) -> list[str]:
    """All captions of the set on the server, read through a cache."""
    given = {"cache_dir": cache, "read_retries": 1, "read_timeout_seconds": 2.0, **data}
    access = Access(DataConfig(**given))
    shards = open_shards([f"http://127.0.0.1:{server.server_port}/{name}"], access)
    table = SampleTable(shards, access)
    return [table.caption(number) for number in range(shards.num_samples)]


NAMED = (DataError, SampleError)  # of a set, of one of its samples
RIGHT = [f"words {number}" for number in range(NUM_SAMPLES)]


def assert_no_half_files(cache: Path) -> None:
    assert not list(cache.glob(".*.partial"))


# What a server sends in place of a file. Each ends the connection, as its lengths may be wrong.
ANSWERS: dict[str, Callable[[bytes, Random], Answer]] = {
    "nothing": lambda content, random: (200, b"", {}),
    "half": lambda content, random: (200, content[: len(content) // 2], {"Content-Length": str(len(content))}),
    "half, said to be all": lambda content, random: (200, content[: len(content) // 2], {"X": "y"}),
    "more": lambda content, random: (200, content + b"more", {"X": "y"}),
    "other bytes": lambda content, random: (200, random.randbytes(len(content)), {"X": "y"}),
    "one other bit": lambda content, random: (200, flipped(content, random), {"X": "y"}),
    "a page": lambda content, random: (200, b"<html>Please log in</html>", {"Content-Type": "text/html"}),
    "nothing found": lambda content, random: (404, b"", {}),
    "forbidden": lambda content, random: (403, b"", {}),
    "busy": lambda content, random: (503, b"", {"Retry-After": "0"}),
    "an odd status": lambda content, random: (299, content, {"X": "y"}),
    "a circle": lambda content, random: (302, b"", {"Location": "/set-000000.tar"}),
    "another scheme": lambda content, random: (302, b"", {"Location": "file:///etc/passwd"}),
    "a range nobody asked for": lambda content, random: (206, content[7:90], {"Content-Range": "bytes 7-89/9999999"}),
    "a range of another file": lambda content, random: (206, content[:90], {"Content-Range": "bytes 0-89/90"}),
}


def flipped(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :]


def changing(name: str, answer: str) -> Change:
    return lambda path, content, random: ANSWERS[answer](content, random) if path == name else None


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_bad_index_is_made_up_for_by_the_tar(server: Quiet, tmp_path: Path, answer: str) -> None:
    server.change = changing("set-000000.tar.index", answer)
    assert captions(server, tmp_path) == RIGHT
    assert_no_half_files(tmp_path)


@pytest.mark.parametrize("answer", [answer for answer in ANSWERS if answer not in ("one other bit", "other bytes")])
def test_a_bad_tar_is_one_sentence_or_right(server: Quiet, tmp_path: Path, answer: str) -> None:
    server.change = changing("set-000000.tar", answer)
    with pytest.raises(NAMED, match=r"set-000000\.tar") as caught:
        captions(server, tmp_path)
    assert "\n" not in str(caught.value)
    assert_no_half_files(tmp_path)
    server.change = lambda *_: None
    assert captions(server, tmp_path) == RIGHT  # nothing bad was kept


@pytest.mark.parametrize("seed", range(8))
def test_a_whole_tar_with_other_bytes_never_enters_the_cache(server: Quiet, tmp_path: Path, seed: int) -> None:
    del server.files["set-000000.tar.index"]
    server.random = Random(seed)
    server.change = changing("set-000000.tar", "one other bit" if seed % 2 else "other bytes")
    with pytest.raises(NAMED, match="by their sha256"):
        captions(server, tmp_path)
    server.change = lambda *_: None
    assert captions(server, tmp_path) == RIGHT


@pytest.mark.parametrize("seed", range(6))
def test_a_fault_that_passes_is_not_noticed(server: Quiet, tmp_path: Path, seed: int) -> None:
    random, bad = Random(seed), ["half", "busy"]
    struck: set[str] = set()

    def change(path: str, content: bytes, _: Random) -> Answer | None:
        if path in struck:
            return None
        struck.add(path)
        return ANSWERS[random.choice(bad)](content, random)

    server.change = change
    assert captions(server, tmp_path, read_retries=3) == RIGHT and len(struck) >= 3


@pytest.mark.parametrize("answer", [answer for answer in ANSWERS if answer not in ("forbidden", "nothing found")])
def test_a_bad_manifest_is_one_sentence_or_read_past(server: Quiet, tmp_path: Path, answer: str) -> None:
    server.change = changing("manifest.json", answer)
    if answer == "one other bit":  # may still be a manifest, of other numbers
        server.files["manifest.json"] = server.files["manifest.json"].replace(b'"bytes": ', b'"bytes": 1')
        server.change = lambda *_: None
    if answer == "a circle":  # it leads to the tar, which is no manifest
        server.change = changing("manifest.json", answer)
    with pytest.raises(NAMED, match=r"manifest|set-000000\.tar") as caught:
        captions(server, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "set-000000.tar", "set-000000.tar?sig=s3cret"])
def test_a_changed_set_under_the_same_address_is_seen(server: Quiet, tmp_path: Path, name: str) -> None:
    if name:
        del server.files["manifest.json"]
    assert captions(server, tmp_path / "cache", name=name) == RIGHT
    kept = set(server.files)
    other = make_set(tmp_path / "other", words="a longer text than before,")
    server.files = {path: content for path, content in other.items() if path in kept}
    again = captions(server, tmp_path / "cache", name=name)
    assert again == [f"a longer text than before, {number}" for number in range(NUM_SAMPLES)]


@pytest.mark.parametrize("damage", ["cut", "empty", "longer", "gone", "other bytes"])
def test_a_damaged_cache_is_filled_anew_or_named(server: Quiet, tmp_path: Path, damage: str) -> None:
    del server.files["set-000000.tar.index"]  # so that the whole tar is an entry
    assert captions(server, tmp_path) == RIGHT
    for path in (tmp_path / "entries").iterdir():
        content = path.read_bytes()
        changed = {"cut": content[:-9], "empty": b"", "longer": content + b"x", "other bytes": bytes(len(content))}
        path.unlink() if damage == "gone" else path.write_bytes(changed[damage])
    if damage == "other bytes":  # of the right size, which only a checksum of each read would tell
        with pytest.raises(NAMED, match="holds 0 samples"):
            captions(server, tmp_path)
    else:
        assert captions(server, tmp_path) == RIGHT


def test_secrets_of_an_address_are_in_no_message(server: Quiet, tmp_path: Path) -> None:
    server.change = lambda path, content, random: (500, b"", {}) if path.endswith(".tar") else None
    with pytest.raises(NAMED) as caught:
        captions(server, tmp_path, name="set-000000.tar?token=s3cret")
    assert "s3cret" not in str(caught.value) and "set-000000.tar" in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["http://[::1/a.jpg", "http:///a.jpg", "http://h:99999/a", "http://\udce9/a", "http://h\x00/a", "http://user@:80/a",
     "http://" + "a" * 300 + "/x", "https://xn--/a", "http://../a", "HTTP://[v1.x]/a", "http://1.2.3.4.5:x/a"],
    ids=range(11),
)  # fmt: skip
def test_an_address_of_a_table_that_is_none_is_one_reason(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*words: object, **options: object) -> None:
        raise OSError("nobody is asked in a test")

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    rules = FetchRules(retries=0, timeout_seconds=0.5)
    with pytest.raises((Unusable, ValueError)) as caught:
        fetch(locate(address, "."), rules)
    if isinstance(caught.value, Unusable):
        assert caught.value.reason == "download failed" and "\n" not in caught.value.detail


@pytest.mark.parametrize("seed", range(10))
def test_a_server_that_redirects_at_random_leads_nowhere_private(server: Quiet, seed: int, tmp_path: Path) -> None:
    hosts = ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "0x7f000001", "[::ffff:127.0.0.1]", "0"]
    host = Random(seed).choice(hosts)
    (tmp_path / "secret").write_text("secret")
    rules = FetchRules(retries=0, timeout_seconds=1.0)
    with pytest.raises(Unusable) as caught:
        fetch(Url(f"http://{host}:{server.server_port}/manifest.json"), rules)
    assert caught.value.reason == "private address" and json.dumps(caught.value.detail)
    assert os.listdir(tmp_path) == ["secret"]
