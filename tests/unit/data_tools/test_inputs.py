"""Inputs by name: patterns and folders of tables, folders that hold more than one thing, links, addresses."""

import io
import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from data_tools.build import BuildSettings, build_shards
from data_tools.inputs import Kind, resolve_inputs
from data_tools.pack import Sample, write_shard
from data_tools.rows import Url, locate
from data_tools.sources import SourceOptions, read_rows
from mmtrain.data.faults import DataError

PLAIN = SourceOptions()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(level: int = 0) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (24, 16), (level % 256, 80, 160)).save(written, "PNG")
    return written.getvalue()


def write(name: str, content: str | bytes = "") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def pairs(name: str, *images: str) -> None:
    write(name, "image,caption\n" + "".join(f"{image},about {image}\n" for image in images))


def tar(name: str, *keys: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    write_shard(Path(name), [Sample(key, {"png": picture(), "txt": b"x"}) for key in keys])


def images(*places: str) -> list[str]:
    return [str(row.image) for row in read_rows(places, PLAIN)]


def refusal(*places: str) -> str:
    with pytest.raises(DataError) as caught:
        read_rows(places, PLAIN)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tables_in_parts_are_read_by_pattern_braces_and_folder(here):
    pairs("cs/part-2.csv", "2.png")
    pairs("cs/part-10.csv", "10.png")
    pairs("cs/deep/part-3.csv", "3.png")
    write("cs/_SUCCESS")
    write("cs/._part-2.csv", "macOS")
    assert images("cs/*.csv") == ["cs/10.png", "cs/2.png"]
    assert images("cs/part-{2,10}.csv") == ["cs/2.png", "cs/10.png"]
    assert images("cs/") == ["cs/deep/3.png", "cs/10.png", "cs/2.png"] == images("cs/**")


def test_parquet_parts_are_one_table(here):
    for number in range(2):
        Path("meta").mkdir(exist_ok=True)
        parquet.write_table(pa.table({"image": [f"{number}.png"], "caption": ["x"]}), f"meta/part-{number}.parquet")
    for place in ("meta/*.parquet", "meta", "meta/part-{0..1}.parquet", "meta/*"):
        rows = read_rows([place], PLAIN)
        assert [(str(row.image), row.number) for row in rows] == [("meta/0.png", 0), ("meta/1.png", 1)]


@pytest.mark.parametrize(
    "folder", ["d [v2]", "s{a,b}", "s{1..2}", "s{x", "a*b", "what?", "50% #1", "\u00e9 \u4e2d", "d\udce9t"]
)
def test_what_exists_is_the_input_whatever_its_name(here, folder):
    pairs(f"{folder}/pairs.csv", "0.png")
    write(f"{folder}/0.png", picture())
    assert images(f"{folder}/pairs.csv") == [f"{folder}/0.png"] == images(f"{folder}/*.csv")
    build_shards([f"{folder}/pairs.csv"], Path("out"), BuildSettings())
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert (manifest["num_samples"], manifest["source"]) == (1, "pairs.csv")


def test_tables_of_several_kinds_are_refused(here):
    pairs("d/train.csv", "0.png")
    write("d/train.jsonl", '{"image": "0.png", "caption": "x"}\n')
    assert "tables of several kinds lie ('train.csv', 'train.jsonl')" in refusal("d")
    assert "tables of several kinds lie" in refusal("d/*")
    assert images("d/*.csv") == ["d/0.png"]


def test_a_folder_of_images_and_tars_is_refused(here):
    for number in range(2):
        write(f"f/{number}.png", picture())
        write(f"f/{number}.txt", "x")
    tar("f/stray.tar", "k")
    assert "holds 2 images ('0.png' first) and 1 tars ('stray.tar' first)" in refusal("f")
    assert [row.source for row in read_rows(["f/*.tar"], PLAIN)] == ["stray.tar/k"]
    Path("f/stray.tar").rename("f/._stray.tar")
    assert images("f") == ["f/0.png", "f/1.png"]


def test_a_manifest_says_that_the_tars_are_the_set(here):
    tar("f/a.tar", "k")
    write("f/manifest.json", "{}")
    write("f/sheet.png", picture())
    assert [one.kind for one in resolve_inputs(["f"])] == [Kind.TARS]


def test_what_is_not_read_is_said(here, caplog):
    write("f/0.png", picture())
    write("f/0.txt", "x")
    pairs("f/pairs.csv", "0.png")
    tar("f/old/a.tar", "k")
    assert images("f") == ["f/0.png"]
    assert [record.getMessage() for record in caplog.records] == [
        "'f': its images are paired with the texts beside them; not read: 'f/pairs.csv'",
        "'f': the tars in its sub-folders are not read: 'f/old'",
    ]
    Path("f/0.txt").unlink()
    assert "a folder of images without texts; name the table beside them: 'f/pairs.csv'" in refusal("f")


def test_nothing_to_read_is_one_sentence_with_what_lies_there(here):
    write("e/._0.png", "macOS")
    assert "no image, table or tar lies there (1 hidden names do not count)" in refusal("e")
    tar("t/sub/a.tar", "k")
    assert "tars lie in 't/sub'" in refusal("t")
    write("j/captions.json", "{}")
    assert "for annotations name their file: 'j/captions.json'" in refusal("j")
    write("p/0.png", picture())
    assert "for images name their folder" in refusal("p/*.png")


def test_folders_behind_links_are_read_once(here):
    write("pics/0.png", picture())
    write("pics/0.txt", "x")
    Path("f").mkdir()
    os.symlink("../pics", "f/more")
    os.symlink("../pics", "f/again")
    os.symlink("..", "f/up")
    assert images("f") == ["f/again/0.png"]


def test_dead_links_and_fifos_among_images_are_named(here):
    write("f/0.png", picture())
    write("f/0.txt", "x")
    write("f/3.png", picture())
    os.symlink("gone.png", "f/1.png")
    os.symlink("gone", "f/more")
    os.mkfifo("f/2.png")
    os.mkfifo("f/3.txt")
    rows = read_rows(["f"], PLAIN)
    assert [(row.source, row.fault, row.detail) for row in rows] == [
        ("0.png", "", ""),
        ("1.png", "missing file", "1.png is a dead link to 'gone.png'"),
        ("2.png", "missing file", "2.png is a FIFO"),
        ("3.png", "caption cannot be read", "3.txt is a FIFO"),
        ("more", "missing file", "more is a dead link to 'gone'"),
    ]


def test_one_input_named_twice_is_refused(here):
    pairs("a.csv", "0.png")
    os.symlink("a.csv", "b.csv")
    assert "names one thing twice, 'a.csv' and 'b.csv'" in refusal("a.csv", "b.csv")
    assert "names one thing twice" in refusal("a.csv", "./a.csv")


def test_the_home_folder_is_that_of_tables_and_of_their_images(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    pairs("home/a.csv", "~/0.png", " 1.png ", "~")
    write("home/ 2.png ", picture())
    assert images("~/a.csv")[:2] == [f"{here}/home/0.png", f"{here}/home/1.png"]
    assert locate(" 2.png ", str(here / "home")) == here / "home" / " 2.png "


@pytest.mark.parametrize(
    ("name", "root", "place"),
    [
        ("a#b%.png", "http://h/pics", Url("http://h/pics/a%23b%25.png")),
        ("HTTP://h/a b.png#x", "/data", Url("http://h/a%20b.png")),
        ("a b.png", "s3://bucket/pics/", Url("s3://bucket/pics/a b.png")),
        ("file:///x/a%23b.png", "http://h", Path("/x/a#b.png")),
    ],
)
def test_names_of_tables_are_encoded_as_names(name, root, place):
    assert locate(name, root) == place


@pytest.mark.parametrize("name", ["http://[::1/a.jpg", "http://h:port/a.jpg", "https:///a.jpg"])
def test_a_malformed_address_is_one_row(here, name):
    write("a.jsonl", json.dumps({"image": name, "caption": "x"}) + '\n{"image": "0.png", "caption": "x"}\n')
    first, second = read_rows(["a.jsonl"], PLAIN)
    assert (first.image, first.fault, str(second.image)) == (None, "malformed address", "0.png")
    assert "is not an address" in refusal(name.replace(".jpg", ".csv"))


class Site(SimpleHTTPRequestHandler):
    """Serves a folder and remembers what it was asked for."""

    asked: list[str] = []

    def do_GET(self) -> None:
        Site.asked.append(self.path)
        super().do_GET()

    def log_message(self, *said: object) -> None:
        pass


@pytest.fixture
def site(here: Path) -> Iterator[str]:
    """The address of a web server of the current folder."""
    Site.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(here)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_signed_table_is_seen_from_the_folder_of_its_path(here, site):
    pairs("my sets/d.csv", "pics/a#1.png")
    (row,) = read_rows([f"{site.upper()}/my sets/d.csv?sig=1/2#top"], PLAIN, here / "inputs")
    assert row.image == Url(f"{site}/my%20sets/pics/a%231.png")
    assert Site.asked == ["/my%20sets/d.csv?sig=1/2"]


def test_an_address_that_is_no_file_is_refused_before_it_is_asked(here, site):
    for place in (f"{site}/set/", f"{site}/set?sig=x.tar", "s3://bucket/set", f"{site}"):
        with pytest.raises(DataError, match="no address of a table or tar; folders behind addresses are not listed"):
            read_rows([place], PLAIN, here / "inputs")
    assert Site.asked == []
    assert "pipe: command" in refusal("pipe:cat x.tar")


def test_what_is_wrong_with_a_fetched_table_is_said_of_its_address(here, site):
    write("d.csv", "picture,caption\nx,y\n")
    with pytest.raises(DataError) as caught:
        read_rows([f"{site}/d.csv?sig=secret"], PLAIN, here / "inputs")
    assert f"{site}/d.csv?*** has no column 'image'" in str(caught.value)


def test_the_manifest_keeps_no_signature(here, site):
    write("0.png", picture())
    pairs("d.csv", "0.png")
    options = SourceOptions(image_root=str(here))
    build_shards([f"{site}/d.csv?sig=secret/2"], Path("out"), BuildSettings(), options=options)
    assert json.loads(Path("out/manifest.json").read_text())["source"] == "d.csv"
    assert "secret" not in Path("out/manifest.json").read_text()


@pytest.mark.parametrize(
    "place", ["http://[::1/a.jpg?sig=hunter2", "http://me:hunter2@[::1/a.jpg", "ttp://me:hunter2@h/a"]
)
def test_a_row_that_is_left_out_keeps_no_secret_of_a_malformed_address(here, place):
    write("0.png", picture())
    write("d.csv", f"image,caption\n0.png,a\n{place},b\n")
    build_shards(["d.csv"], Path("out"), BuildSettings(), options=SourceOptions(image_root=str(here)))
    assert "malformed address" in Path("out/left_out.jsonl").read_text()
    for name in ("left_out.jsonl", "samples.parquet"):
        assert b"hunter2" not in Path("out", name).read_bytes()
