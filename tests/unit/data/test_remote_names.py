"""Addresses of shards: signed, with fragments, in capital letters, with spaces and letters of other languages."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

from mmtrain.config.schema import DataConfig
from mmtrain.data.faults import DataError
from mmtrain.data.index import open_index, scan_shard, write_index
from mmtrain.data.manifest import describe_shard, write_manifest
from mmtrain.data.places import Access
from mmtrain.data.shards import Shards, open_shards
from tests.unit.data.made import write_set

NUM_SAMPLES = 12


class Site(SimpleHTTPRequestHandler):
    """Serves a folder; where `signed` is set, only tars and only with that query. Without ranges."""

    signed = ""
    asked: list[str] = []

    def do_GET(self) -> None:
        Site.asked.append(self.path)
        path, _, query = self.path.partition("?")
        if Site.signed and (query != Site.signed or not path.lower().endswith(".tar")):
            return self.send_error(403)
        super().do_GET()

    def list_directory(self, path: str) -> None:
        self.send_error(404)

    def log_message(self, *said: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder and the address of a web server of it."""
    folder = tmp_path_factory.mktemp("served")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def site(served: tuple[Path, str], request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A folder of this test alone on the server, and its address."""
    Site.signed, Site.asked = "", []
    return served[0] / tmp_path.name, f"{served[1]}/{tmp_path.name}"


def listed(folder: Path) -> Path:
    """A set of three shards with indexes and a manifest."""
    write_set(folder, NUM_SAMPLES, shard=4)
    shards = sorted(folder.glob("*.tar"))
    for shard in shards:
        write_index(scan_shard(shard))
    entries = [describe_shard(shard, len(open_index(shard).keys)) for shard in shards]
    write_manifest(folder, entries, source=None, settings=None, statistics=None)
    return folder


def opened(place: str, cache: Path) -> Shards:
    return open_shards([place], Access(DataConfig(cache_dir=cache, read_retries=0)))


def same(one: Shards, other: Shards) -> bool:
    return one.digest == other.digest and np.array_equal(one.starts, other.starts)


@pytest.mark.parametrize("name", ["set", "my set", "\u00e9t\u00e9 \u4e2d", "100% [a] #1"])
def test_a_folder_of_any_name_is_the_local_one(site, tmp_path, name):
    folder, url = site
    local = open_shards([str(listed(folder / name))], Access(DataConfig()))
    address = f"{url}/{name}".replace("%", "%25").replace("#", "%23")
    assert same(opened(address, tmp_path / "a"), local)
    assert same(opened(address.replace("http://", "HTTP://") + "/", tmp_path / "b"), local)
    assert same(opened(f"{address}/set-{{000000..000002}}.tar#top", tmp_path / "c"), local)


def test_a_signed_folder_is_asked_with_its_signature(site, tmp_path):
    folder, url = site
    local = open_shards([str(listed(folder / "set"))], Access(DataConfig()))
    shards = opened(f"{url}/set?sig=a/b", tmp_path / "cache")
    assert same(shards, local) and shards.name(0) == "set-000000.tar"
    assert [path.partition("?")[2] for path in Site.asked] == ["sig=a/b"]
    assert shards.locations[0] == f"{url}/set/set-000000.tar?sig=a/b"


def test_the_signature_of_a_tar_holds_for_the_tar_alone(site, tmp_path):
    folder, url = site
    write_set(folder / "set", NUM_SAMPLES, shard=4)
    local = open_shards([str(folder / "set")], Access(DataConfig()))
    for number, signature in enumerate(("sig=1/2", "sig=%7Ba,b%7D")):
        Site.signed = signature
        shards = opened(f"{url}/set/set-{{000000..000002}}.tar?{signature}", tmp_path / str(number))
        assert same(shards, local)


def test_what_a_signed_tar_stands_beside_may_be_no_manifest(site, tmp_path):
    folder, url = site
    write_set(folder / "set", 4)
    (folder / "set" / "manifest.json").write_text("<html>please log in</html>")
    (folder / "set" / "set-000000.tar.index").write_text("<html>please log in</html>")
    assert opened(f"{url}/set/set-000000.tar?sig=1", tmp_path / "cache").num_samples == 4
    with pytest.raises(DataError, match="is not a manifest of shards"):
        opened(f"{url}/set/set-000000.tar", tmp_path / "other")


def test_suffixes_are_of_any_case_here_and_there(site, tmp_path):
    folder, url = site
    write_set(folder / "set", 4)
    shard = (folder / "set" / "set-000000.tar").rename(folder / "set" / "SET.TAR")
    assert opened(f"{url}/set/SET.TAR?x=1", tmp_path / "cache").num_samples == 4
    memory = fsspec.filesystem("memory")
    bucket = f"/names-{tmp_path.name}"
    memory.pipe(f"{bucket}/SET.TAR", shard.read_bytes())
    memory.pipe(f"{bucket}/._SET.TAR", b"macOS")
    assert opened(f"MEMORY:/{bucket}", tmp_path / "more").num_samples == 4


def test_one_address_twice_is_refused_without_its_signature(site, tmp_path):
    folder, url = site
    listed(folder / "set")
    access = Access(DataConfig(cache_dir=tmp_path / "cache", read_retries=0))
    with pytest.raises(DataError, match=r"set-000000.tar\?\*\*\*' 2 times"):
        open_shards([f"{url}/set?sig=1", f"{url}/set/set-000000.tar?sig=2"], access)


def test_a_manifest_that_lists_paths_is_refused(site, tmp_path):
    folder, url = site
    listed(folder / "set")
    manifest = folder / "set" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("set-000001.tar", "../other/x.tar"))
    with pytest.raises(DataError, match="'../other/x.tar' is no name of a shard"):
        opened(f"{url}/set", tmp_path / "cache")


@pytest.mark.parametrize(
    "place", ["http://[::1/x.tar", "http:///x.tar", "http://h:port/x.tar", "http://u:secret@h:port/x.tar?sig=secret"]
)
def test_a_malformed_address_is_one_sentence(tmp_path, place):
    with pytest.raises(DataError, match="is not an address") as caught:
        opened(place, tmp_path)
    assert "secret" not in str(caught.value)
