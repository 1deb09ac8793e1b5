"""Names of any kind through the commands: the right files, or one sentence and exit code 2."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from glob import glob
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from mmtrain.config.schema import DataConfig
from mmtrain.data.places import Access
from mmtrain.data.shards import open_shards
from mmtrain.deploy.pictures import find_images
from mmtrain.io.errors import InputError
from mmtrain.io.folders import walk_files
from mmtrain.io.paths import expand_url, resolve
from mmtrain.io.urls import file_name, join_url, normalize_url, strip_query
from tests.hostile.conftest import Ended, Tiny

Command = Callable[..., Ended]

NAMES = (
    "plain", "with space", " leading", "trailing ", "d [v2]", "[", "]", "s{a,b}", "s{1..2}", "s{x", "s}x", "{}", "a*b",
    "*", "what?", "50%", "a%20b", "a#b", "a&b;c", "$HOME", "`id`", "-dash", "~", "~root", "=x", "a,b", "a:b", "\\b",
    "'quote'", '"double"', "new\nline", "tab\tx", "esc\x1b[31m", "[red]x", "\u00e9t\u00e9", "e\u0301", "\u4e2d\u6587",
    "\u202eevil", "d\udce9t", "\udcff\udcfe", "null", "007", "1e3", "pipe:cat x", "file:", "http:", "x..", "x" * 200,
)  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def picture() -> bytes:
    """A JPEG."""
    content = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(content, "JPEG")
    return content.getvalue()


def write_tar(path: Path, picture: bytes, num_samples: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in range(num_samples):
            for suffix, content in (("jpg", picture), ("txt", b"a red card")):
                member = tarfile.TarInfo(f"k{number}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def one_sentence(ended: Ended, *fragments: str) -> None:
    assert ended.code == 2, (ended.out, ended.err)
    assert ended.err.count("\n") == 1 and all(fragment in ended.err for fragment in fragments), ended.err


def safe(name: str) -> str:
    """A name as an argument: one that reads as a flag or a command is given with its folder."""
    return f"./{name}" if name.startswith(("-", "pipe:")) else name


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_is_built_verified_and_opened(name: str, picture: bytes, command: Command) -> None:
    Path(name).mkdir()
    Path(name, "0.jpg").write_bytes(picture)
    Path(name, "t.csv").write_text("image,caption\n0.jpg,a red card\n")
    out = Path("out", name)
    ended = command("mmdata", "build", f"{safe(name)}/t.csv", f"out/{name}", "--processes", 1)
    assert ended.code == 0, ended.err
    assert json.loads((out / "manifest.json").read_text())["num_samples"] == 1
    assert command("mmdata", "verify", f"out/{name}", "--processes", 1).code == 0
    shards = open_shards([f"out/{name}"], Access(DataConfig()))
    assert shards.num_samples == 1 and shards.digest == open_shards([str(out.resolve())], Access(DataConfig())).digest
    assert find_images(safe(name)) == [Path(name, "0.jpg")]


@pytest.mark.parametrize("name", NAMES)
def test_a_tar_of_any_name_is_that_tar(name: str, picture: bytes) -> None:
    folder = Path("s")
    write_tar(folder / f"{name}.tar", picture)
    for place in (f"s/{name}.tar", "s", "s/*", f"{Path.cwd()}/s/{name}.tar"):
        shards = open_shards([place], Access(DataConfig()))
        assert (shards.num_samples, shards.name(0)) == (2, f"{name}.tar")
    os.chdir(folder)  # where no folder stands before it, a name may look like an option, an address or a command
    assert open_shards([f"./{name}.tar"], Access(DataConfig())).num_samples == 2
    assert open_shards(["*.tar"], Access(DataConfig())).num_samples == 2


def test_a_run_trains_on_folders_of_any_name(tiny: Tiny, command: Command) -> None:
    shutil.copytree(tiny.train, "s{a,b}")
    shutil.copytree(tiny.heldout, "held [v2]")
    words = ["--config", tiny.config, f"data.tokenizer={tiny.tokenizer}", "run_dir=run"]
    ended = command("mmtrain", "pretrain", *words, "data.train=s{a,b}", "data.heldout=held [v2]/*.tar")
    assert ended.code == 0, ended.err
    one_sentence(command("mmtrain", "pretrain", *words[:3], "run_dir=x", "data.train=sa", "data.heldout=x"), "'s{a,b}'")


BAD_NAMES = {
    "empty": "",
    "missing": "nothing/here",
    "long": "a" * 400,
    "long path": "a/" * 3000 + "b",
    "long pattern": "a" * 400 + "*.tar",
    "braces": "s{a",
    "many braces": "{0..99999999}.tar",
    "nested braces": "{{a,b},{c,d}}{e,f}.tar",
    "no match": "*.nothing",
    "dead link": "dead.tar",
    "circle": "circle.tar",
    "fifo": "fifo.tar",
    "socket": "/dev/null",
    "variable": "$DATA/train",
    "address": "http://127.0.0.1:9/set",
    "store": "S3://bucket/x.tar",
    "command": "pipe:touch ran",
    "user": "~nobody-of-that-name/x",
    "slashes": "///nothing///",
    "malformed": "http://[::1/x.tar",
}


@pytest.mark.parametrize("words", [("verify",), ("inspect",), ("answers", "--out", "x"), ("tokenizer", "--out", "x")])
@pytest.mark.parametrize("case", BAD_NAMES)
def test_a_name_without_shards_is_one_sentence(case: str, words: tuple[str, ...], command: Command) -> None:
    os.symlink("gone.tar", "dead.tar")
    os.symlink("circle.tar", "circle.tar")
    os.mkfifo("fifo.tar")
    one_sentence(command("mmdata", words[0], BAD_NAMES[case], *words[1:]), "SHARDS")
    assert not Path("ran").exists() and not Path("x").exists()


@pytest.mark.parametrize(
    "case", [case for case in BAD_NAMES if case not in ("address", "store", "command", "malformed")]
)
def test_an_input_or_image_that_is_none_is_one_sentence(case: str, command: Command) -> None:
    os.symlink("gone.tar", "dead.tar")
    os.symlink("circle.tar", "circle.tar")
    os.mkfifo("fifo.tar")
    one_sentence(command("mmdata", "build", BAD_NAMES[case], "out"), "INPUT")
    with pytest.raises(InputError, match="names no image"):
        find_images(BAD_NAMES[case])


TREE = ("a", "b", "c[1]", "d{x,y}", ".h", "e*")


def grow(seed: int, *, links: bool) -> Random:
    """A random tree of folders and files below t, with links between folders (circles too) where asked."""
    random, folders = Random(seed), [Path("t")]
    Path("t").mkdir()
    for _ in range(12):
        folder = random.choice(folders) / random.choice(TREE)
        if not os.path.lexists(folder):
            folder.mkdir()
            folders.append(folder)
    for number in range(20):
        (random.choice(folders) / f"{random.choice(('', '._'))}{number}.{random.choice(('tar', 'TAR', 'txt'))}").touch()
    for number in range(5 if links else 0):
        target = os.path.relpath(random.choice(folders), folder := random.choice(folders))
        os.symlink(target, folder / f"link{number}")
    return random


@pytest.mark.parametrize("seed", range(12))
def test_a_walk_meets_every_file_once_whatever_the_links(seed: int) -> None:
    grow(seed, links=True)
    expected, todo, seen = set(), ["t"], set()
    while todo:  # all that can be reached without a hidden name, by real path
        here = os.path.realpath(todo.pop())
        if here in seen:
            continue
        seen.add(here)
        for name in os.listdir(here):
            path = os.path.join(here, name)
            if os.path.isdir(path) and not name.startswith("."):
                todo.append(path)
            elif name.lower().endswith(".tar") and not name.startswith("."):
                expected.add(path)
    found, _ = walk_files(Path("t"), lambda name: name.lower().endswith(".tar"), "INPUT")
    assert sorted(os.path.realpath(entry.path) for entry in found) == sorted(expected)
    assert [entry.path for entry in found] == sorted(entry.path for entry in found)
    everything = [entry for entry in resolve("t/**", "INPUT") if entry.kind == "a file"]
    assert {os.path.realpath(entry.path) for entry in everything} >= expected
    assert len({os.path.realpath(entry.path) for entry in everything}) == len(everything)


@pytest.mark.parametrize("seed", range(12))
def test_patterns_mean_what_globs_mean(seed: int) -> None:
    """In trees whose names have no signs of patterns, the standard library's glob is the reference."""
    random = grow(seed, links=False)
    shutil.rmtree("t/c[1]", ignore_errors=True)
    for odd in ("c[1]", "d{x,y}", "e*"):
        for path in glob(f"t/**/{''.join(f'[{sign}]' if sign in '[*' else sign for sign in odd)}", recursive=True):
            shutil.rmtree(path, ignore_errors=True)
    for _ in range(10):
        parts = random.choices(("*", "**", "?", "a", "b", "[ab]", "*.tar", "1*", ".*", "[!a]*"), k=random.randint(1, 3))
        pattern = "/".join(["t", *parts, random.choice(("*", "*.tar", "[0-9].*"))])
        try:
            found = {str(entry.path) for entry in resolve(pattern, "INPUT")}
        except InputError as error:
            assert "matches nothing" in str(error) or "does not exist" in str(error)
            found = set()
        assert found == set(glob(pattern, recursive=True)), pattern


@pytest.mark.parametrize("seed", range(30))
def test_generated_addresses_are_encoded_once_or_refused(seed: int) -> None:
    random = Random(seed)
    signs = "ab/:?#[]@!$&'()*+,;=%{}.. \u00e9\u4e2d\udce9\n\x1b\\|^`\"<>~"
    for _ in range(30):
        host = random.choice(("h", "h:80", "u:p@h", "[::1]", "[::1", "", "h:x", "h h", "\u00e9.org"))
        address = f"{random.choice(('http', 'HTTPS', 's3', 'Gs'))}://{host}/" + "".join(random.choices(signs, k=12))
        try:
            urls = expand_url(address, "data.train")
        except InputError as error:
            assert "\n" not in str(error) and "p@h" not in str(error)
            continue
        for url in urls:
            assert normalize_url(url) == url
            if url.startswith("http"):
                path = url.split("/", 3)[3]
                assert path.isascii() and "#" not in path and not any(sign.isspace() for sign in path)
                assert "?" not in strip_query(url) and strip_query(url) == strip_query(strip_query(url))
        name = "".join(random.choices(signs.replace("/", ""), k=6)).strip(".") or "x"
        assert file_name(join_url("http://h/set?sig=1", name)) == name
