"""Bytes from addresses: retries, limits, and failures with names. The server answers on this machine only."""

import threading
import time
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from data_tools.build import BuildSettings, Earlier, Effort, build_shards
from data_tools.fetch import FetchRules, check_stores, fetch, fetch_file
from data_tools.left_out import Unusable
from data_tools.rows import Url
from data_tools.sources import SourceOptions, read_rows
from mmtrain.data.index import DataError
from tests.unit.data_tools.test_sources import left_out, packed, picture

FAST = FetchRules(threads=8, retries=2, backoff_seconds=0.01, timeout_seconds=5.0, private_addresses=True)
HASTY = replace(FAST, timeout_seconds=0.2)


class Site(BaseHTTPRequestHandler):
    """Answers by the first word of the path; counts what was asked for."""

    asked: Counter[str] = Counter()
    is_mended = False
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        getattr(self, "answer_" + self.path.split("/")[1])()

    def answer_image(self) -> None:
        self._send(200, picture(int(self.path.split("/")[-1].split(".")[0])))

    def answer_flaky(self) -> None:
        self.answer_image() if self.asked[self.path] > 2 else self._send(503, b"later")

    def answer_broken(self) -> None:
        self.answer_image() if self.is_mended else self._send(500, b"no")

    def answer_gone(self) -> None:
        self._send(404, b"gone")

    def answer_turn(self) -> None:
        self._send(302, b"", Location="/image/1.png")

    def answer_circle(self) -> None:
        self._send(302, b"", Location="/circle/")

    def answer_large(self) -> None:
        self._send(200, bytes(5000))

    def answer_short(self) -> None:
        self._send(200, b"half", length=100)

    def answer_refused(self) -> None:
        self._send(200, picture(), **{"X-Robots-Tag": "otherbot: noindex, noai"})

    def answer_silent(self) -> None:
        time.sleep(0.7)
        self.close_connection = True

    def answer_table(self) -> None:
        self._send(200, b"image,caption\n../image/1.png,one\n/image/2.png,two\n")

    def log_message(self, *words: object) -> None:
        pass

    def _send(self, status: int, content: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = length is not None


class Server(ThreadingHTTPServer):
    """Says nothing about clients that hang up."""

    daemon_threads = True

    def handle_error(self, request: object, address: object) -> None:
        pass


@pytest.fixture
def site():
    """The address of a running site."""
    Site.asked, Site.is_mended = Counter(), False
    server = Server(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_bytes_come_whole_also_behind_a_redirect(site):
    assert fetch(Url(f"{site}/image/5.png"), FAST) == picture(5)
    assert fetch(Url(f"{site}/turn/"), FAST) == picture(1)


def test_a_passing_failure_is_tried_again_and_a_lasting_one_is_not(site):
    assert fetch(Url(f"{site}/flaky/3.png"), FAST) == picture(3)
    assert Site.asked["/flaky/3.png"] == 3
    with pytest.raises(Unusable, match="HTTP 404"):
        fetch(Url(f"{site}/gone/1.png"), FAST)
    assert Site.asked["/gone/1.png"] == 1


@pytest.mark.parametrize(
    ("path", "reason", "detail"),
    [
        ("/broken/1.png", "download failed", "HTTP 500, 3 attempts"),
        ("/large/", "file too large", "more than 1000 bytes"),
        ("/short/", "download failed", "3 attempts"),
        ("/silent/", "download failed", "3 attempts"),
        ("/circle/", "download failed", "too many redirects"),
        ("/refused/", "not allowed by its site", "noai"),
    ],
)
def test_what_cannot_be_had_is_named_with_its_reason(site, path, reason, detail):
    with pytest.raises(Unusable) as caught:
        fetch(Url(site + path), HASTY if path == "/silent/" else FAST, most_bytes=1000)
    assert caught.value.reason == reason and detail in caught.value.detail


def test_nobody_listening_is_a_failed_download():
    with pytest.raises(Unusable, match="download failed"):
        fetch(Url("http://127.0.0.1:9/x.png"), FetchRules(retries=0, timeout_seconds=0.3, private_addresses=True))


def test_object_stores_are_read_through_fsspec():
    with fsspec.open("memory://bucket/a.png", "wb") as file:
        file.write(picture(4))
    assert fetch(Url("memory://bucket/a.png"), FAST) == picture(4)
    with pytest.raises(Unusable, match="FileNotFoundError"):
        fetch(Url("memory://bucket/b.png"), FAST)
    with pytest.raises(Unusable, match="chains"):
        fetch(Url("simplecache::memory://bucket/a.png"), FAST)


def test_a_store_that_nobody_knows_is_one_sentence_before_anything_is_read():
    with pytest.raises(DataError, match="nostore://"):
        check_stores([Url("nostore://bucket/a.png")])
    check_stores([Url("https://host/a.png"), Url("memory://bucket/a.png"), None])


def table_of(addresses: list[str], folder: Path) -> Path:
    lines = [f"{address},picture {number}" for number, address in enumerate(addresses)]
    (folder / "pairs.csv").write_text("\n".join(["image,caption", *lines]) + "\n")
    return folder / "pairs.csv"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_build_downloads_in_any_order_and_packs_in_the_order_of_the_input(site, tmp_path, processes):
    kinds = ["image", "image", "flaky", "gone"]
    addresses = [f"{site}/{kinds[number % 4]}/{number}.png" for number in range(40)]
    report = build_shards(
        [str(table_of(addresses, tmp_path))], tmp_path / "out", BuildSettings(), effort=Effort(processes, FAST)
    )
    assert report.num_packed == 30 and report.left_out.counts() == {"download failed": 10}
    assert [int(key) for key, _, _ in packed(tmp_path / "out")] == [n for n in range(40) if n % 4 != 3]


def test_failures_of_an_earlier_build_are_tried_again_without_the_rest(site, tmp_path):
    kinds = ["image", "broken", "gone"]
    table = table_of([f"{site}/{kinds[number % 3]}/{number}.png" for number in range(12)], tmp_path)
    effort = Effort(1, FAST)
    build_shards([str(table)], tmp_path / "first", BuildSettings(), effort=effort)
    assert len(packed(tmp_path / "first")) == 4
    Site.is_mended = True
    Site.asked.clear()
    earlier = Earlier(failed=tmp_path / "first")
    build_shards([str(table)], tmp_path / "second", BuildSettings(), effort=effort, earlier=earlier)
    assert [int(key) for key, _, _ in packed(tmp_path / "second")] == [1, 4, 7, 10]
    assert not any("/image/" in path for path in Site.asked)
    assert len(left_out(tmp_path / "second")) == 4
    (tmp_path / "pairs.csv").write_text("image,caption\nx.png,other\n")
    with pytest.raises(DataError, match="give the same INPUT as then"):
        build_shards([str(table)], tmp_path / "third", BuildSettings(), effort=effort, earlier=earlier)


def test_an_input_behind_an_address_is_fetched_first_and_its_names_are_seen_from_there(site, tmp_path):
    rows = read_rows([f"{site}/table/pairs.csv"], SourceOptions(), tmp_path)
    assert [row.image for row in rows] == [Url(f"{site}/table/../image/1.png"), Url(f"{site}/table/image/2.png")]
    assert fetch_file(Url(f"{site}/table/pairs.csv"), tmp_path, FAST).exists()
    assert Site.asked["/table/pairs.csv"] == 1
    with pytest.raises(DataError, match="404"):
        read_rows([f"{site}/gone/pairs.csv"], SourceOptions(), tmp_path)
