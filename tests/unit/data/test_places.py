"""Shards that lie elsewhere: the same samples as from a local folder, through a cache with a bound."""

import http.server
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import pytest

from mmtrain.config.schema import DataConfig
from mmtrain.data.faults import DataError
from mmtrain.data.index import open_index, read_manifest, scan_shard, write_index
from mmtrain.data.manifest import describe_shard, write_manifest
from mmtrain.data.places import Access
from mmtrain.data.shards import open_shards
from mmtrain.data.table import SampleTable
from tests.unit.data.made import caption_of, files_of, open_stream, write_set, write_tar
from tests.unit.data.test_stream import content

NUM_SAMPLES = 100


@pytest.fixture(scope="module")
def listed_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with indexes and a manifest."""
    folder = write_set(tmp_path_factory.mktemp("listed") / "set", NUM_SAMPLES)
    entries = []
    for shard in sorted(folder.glob("*.tar")):
        write_index(scan_shard(shard))
        entries.append(describe_shard(shard, len(open_index(shard).keys)))
    write_manifest(folder, entries, source=None, settings=None, statistics=None)
    return folder


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; ranges only where `ranges` says so, and failing the first `failures` times."""

    ranges, failures, served = True, 0, 0

    def do_GET(self) -> None:
        if Server.failures:
            Server.failures -= 1
            return self.send_error(503)
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        body, said = path.read_bytes(), self.headers.get("Range")
        ranged = Server.ranges and said
        if ranged:
            start, stop = said.removeprefix("bytes=").split("-")
            body = body[int(start) : int(stop) + 1]
        Server.served += len(body)
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *said: object) -> None:
        pass


@pytest.fixture
def url(listed_set: Path) -> Iterator[str]:
    Server.ranges, Server.failures, Server.served = True, 0, 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(listed_set)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def first_batches(place: str, tokenizer: Path, **data: object) -> list[bytes]:
    stream = open_stream(place, tokenizer, **data)
    batches = [batch for _ in range(3) for batch in stream.take(4)]
    stream.close()
    return content(batches)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_set_on_a_web_server_gives_what_the_local_one_gives(
    listed_set: Path, url: str, tokenizer_path: Path, tmp_path: Path, ranges: bool, num_workers: int
):
    Server.ranges = ranges
    remote = first_batches(url, tokenizer_path, cache_dir=tmp_path / "cache", num_workers=num_workers)
    assert remote == first_batches(str(listed_set), tokenizer_path)
    served = Server.served
    assert first_batches(url, tokenizer_path, cache_dir=tmp_path / "cache") == remote
    # The second time only the manifest comes from there.
    assert Server.served - served == (listed_set / "manifest.json").stat().st_size


def test_tars_without_index_or_manifest_are_read_by_urls_pipes_and_object_stores(
    good_set: Path, tokenizer_path: Path, tmp_path: Path
):
    names = [shard.name for shard in sorted(good_set.glob("*.tar"))]
    memory = fsspec.filesystem("memory")
    for name in names:
        memory.pipe(f"/bucket/{name}", (good_set / name).read_bytes())
    local = first_batches(str(good_set), tokenizer_path)
    pattern = f"{{000000..{len(names) - 1:06d}}}"
    for number, place in enumerate([f"pipe:cat {good_set}/set-{pattern}.tar", "memory://bucket", f"file://{good_set}"]):
        folder = tmp_path / str(number)
        assert first_batches(place, tokenizer_path, cache_dir=folder, allow_pipe=True) == local, place


def test_a_remote_place_without_a_cache_folder_or_without_shards_is_refused(
    url: str, tokenizer_path: Path, tmp_path: Path
):
    with pytest.raises(DataError, match="data.cache_dir is not set"):
        first_batches(url, tokenizer_path)
    with pytest.raises(DataError, match="where a manifest.json is missing"):
        open_stream(f"{url}/nothing", tokenizer_path, cache_dir=tmp_path)


def test_a_failing_read_is_tried_again_and_a_lasting_failure_is_named(
    listed_set: Path, url: str, tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pauses: list[float] = []
    monkeypatch.setattr("mmtrain.io.retry.time.sleep", pauses.append)
    Server.failures = 2
    assert first_batches(url, tokenizer_path, cache_dir=tmp_path) == first_batches(str(listed_set), tokenizer_path)
    assert [0.3 < pauses[0] < 0.7, 0.7 < pauses[1] < 1.3, len(pauses)] == [True, True, 2]
    Server.failures = 100
    with pytest.raises(DataError, match=r"manifest.json could not be read in 2 tries: HTTP 503"):
        open_stream(url, tokenizer_path, cache_dir=tmp_path, read_retries=1)


def test_a_command_that_fails_is_named(tokenizer_path: Path, tmp_path: Path):
    said = {"tokenizer": tokenizer_path, "cache_dir": tmp_path, "read_retries": 0}
    with pytest.raises(DataError, match=r"could not be read in 1 try: the command ended with exit code 3: no such tar"):
        open_stream("pipe:echo no such tar >&2; exit 3", allow_pipe=True, **said)
    with pytest.raises(DataError, match=r"could not be read in 1 try: the command ended with exit code 1"):
        open_stream("pipe:false | cat", allow_pipe=True, **said)
    with pytest.raises(DataError, match="unless data.allow_pipe is true"):
        open_stream(f"pipe:touch {tmp_path}/ran", **said)
    assert not (tmp_path / "ran").exists()


def test_a_set_with_a_manifest_is_opened_without_its_tars_and_a_changed_one_is_named(
    listed_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "copy"
    shutil.copytree(listed_set, folder)
    last = sorted(folder.glob("*.tar"))[-1]
    last.write_bytes(last.read_bytes()[:-512])
    with monkeypatch.context() as patch:
        patch.setattr("mmtrain.data.places.Access.sidecar", lambda *_: pytest.fail("an index was read at the start"))
        access = Access(DataConfig())
        table = SampleTable(open_shards([str(folder)], access), access)
    assert len(table) == read_manifest(folder).num_samples == NUM_SAMPLES
    assert table.caption(3) == caption_of(3)
    with pytest.raises(Exception, match=r"set-000002.tar is .* bytes long, but its manifest says"):
        table.caption(NUM_SAMPLES - 1)
    last.unlink()
    with pytest.raises(DataError, match="lists 1 shards that are not there, set-000002.tar first"):
        open_shards([str(folder)], access)


def test_parts_far_apart_and_out_of_order_are_read(tmp_path: Path):
    big = {"a.bin": bytes(200_000), **files_of(1)}
    write_tar(tmp_path / "x.tar", {"k1": {"txt": b"first", "a.bin": big["a.bin"], "jpg": files_of(1)["jpg"]}})
    access = Access(DataConfig())
    found = SampleTable(open_shards([str(tmp_path)], access), access).contents(0)
    assert (bytes(found["caption"]), bytes(found["image"]), found["metadata"]) == (b"first", files_of(1)["jpg"], None)
