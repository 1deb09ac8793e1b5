"""Outputs of `mmdata` besides builds: synth, index, tokenizer, answers, inspect and merge never cost a foreign file."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from mmtrain.data.index import read_manifest
from tests.hostile.outputs import build_words, check_refused, contents, linked, put

SYNTH = ["--num-train", "6", "--num-heldout", "2", "--samples-per-shard", "2", "--image-size", "16", "--processes", "1"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic set that nobody changes."""
    from data_tools.cli import main

    folder = tmp_path_factory.mktemp("drawn") / "set"
    assert main(["synth", str(folder), *SYNTH]) == 0
    return folder


@pytest.fixture
def synthetic(drawn: Path, tmp_path: Path, no_fsync: None) -> Path:
    return shutil.copytree(drawn, tmp_path / "set")


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize(
    "name", ["samples.parquet", "left_out.jsonl", "manifest.json", "thesis.tar", "train-000000.tar.index"]
)
def test_synth_takes_no_foreign_name(name, overwrite, tmp_path, command) -> None:
    put(tmp_path / "set" / "train", name, b"mine")
    before = contents(tmp_path)
    check_refused(command("mmdata", "synth", tmp_path / "set", *SYNTH, *overwrite), name)
    assert contents(tmp_path) == before and not (tmp_path / "set" / "heldout").exists()


@pytest.mark.parametrize("name", ["notes.txt", "train/.thesis.partial", "train/pics/0.jpg", "tokenizer.model"])
def test_synth_keeps_what_lies_beside(name, synthetic, command) -> None:
    put(synthetic, name, b"mine")
    before = contents(synthetic)
    check_refused(command("mmdata", "synth", synthetic, *SYNTH), "already holds 3 shards", "--overwrite")
    assert contents(synthetic) == before
    assert command("mmdata", "synth", synthetic, *SYNTH, "--seed", "7", "--overwrite").code == 0
    after = contents(synthetic)
    assert after.keys() == before.keys() and after[name] == b"mine"
    assert after["train/train-000000.tar"] != before["train/train-000000.tar"]


def test_a_synth_that_fails_leaves_the_old_set(synthetic, tmp_path, command, monkeypatch) -> None:
    from data_tools import synthetic as module

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "train-000001.tar")

    before = contents(tmp_path)
    monkeypatch.setattr(module, "write_manifest", fail)
    for out in (synthetic, tmp_path / "new"):
        check_refused(command("mmdata", "synth", out, *SYNTH, "--seed", "7", "--overwrite"), "No space left")
    assert contents(tmp_path) == before and not (tmp_path / "new").exists()


def entries(folder: Path) -> dict[str, int]:
    return {entry.name: entry.num_samples for entry in read_manifest(folder).shards}


def test_indexing_one_shard_keeps_what_the_manifest_says_of_others(synthetic, command) -> None:
    train = synthetic / "train"
    before = contents(train)
    check_refused(
        command("mmdata", "index", "--processes", "1", train / "train-000001.tar"), "train-000001.tar", "--overwrite"
    )
    assert contents(train) == before
    assert command("mmdata", "index", "--processes", "1", train / "train-000001.tar", "--overwrite").code == 0
    assert entries(train) == {f"train-00000{number}.tar": 2 for number in range(3)}
    assert read_manifest(train).source == "mmdata synth" and read_manifest(train).indexed == ()
    assert command("mmdata", "verify", "--processes", "1", train).code == 0


def test_shards_of_another_tool_are_indexed_one_by_one(synthetic, tmp_path, command) -> None:
    for name in ("a", "b"):
        (tmp_path / "x").mkdir(exist_ok=True)
        shutil.copy(synthetic / "train/train-000000.tar", tmp_path / "x" / f"{name}.tar")
    assert command("mmdata", "index", "--processes", "1", tmp_path / "x" / "a.tar").code == 0
    assert entries(tmp_path / "x") == {"a.tar": 2} and not (tmp_path / "x/b.tar.index").exists()
    assert command("mmdata", "index", "--processes", "1", tmp_path / "x" / "b.tar").code == 0
    assert entries(tmp_path / "x") == {"a.tar": 2, "b.tar": 2}
    check_refused(command("mmdata", "index", "--processes", "1", tmp_path / "x"), "a.tar, ...", "--overwrite")
    (tmp_path / "x/a.tar").unlink()
    assert command("mmdata", "index", "--processes", "1", tmp_path / "x", "--overwrite").code == 0
    assert entries(tmp_path / "x") == {"b.tar": 2}


def test_what_is_only_indexed_is_never_overwritten(synthetic, tmp_path, command) -> None:
    (tmp_path / "x").mkdir()
    shutil.copy(synthetic / "train/train-000000.tar", tmp_path / "x" / "train-000000.tar")
    assert command("mmdata", "index", "--processes", "1", tmp_path / "x").code == 0
    shutil.copy(synthetic / "train/train-000000.tar", synthetic / "train" / "theirs.tar")
    assert command("mmdata", "index", "--processes", "1", synthetic / "train/theirs.tar").code == 0
    assert read_manifest(synthetic / "train").indexed == ("theirs.tar",)
    before = contents(tmp_path)
    check_refused(command("mmdata", "synth", synthetic, *SYNTH, "--overwrite"), "theirs.tar")
    put(tmp_path, "t.csv", b"image,caption\na.png,b\n")
    before = contents(tmp_path)
    check_refused(command("mmdata", *build_words(tmp_path / "t.csv", tmp_path / "x", "--overwrite")), "train-000000")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("name", ["train-000001.tar.index", "manifest.json"])
def test_index_takes_no_foreign_name(name, overwrite, synthetic, command) -> None:
    (synthetic / "train/manifest.json").unlink()
    put(synthetic / "train", name, b"mine")
    before = contents(synthetic)
    check_refused(command("mmdata", "index", "--processes", "1", synthetic / "train", *overwrite), name)
    assert contents(synthetic) == before


def test_a_manifest_with_paths_in_it_removes_nothing_elsewhere(synthetic, tmp_path, command) -> None:
    victim = put(tmp_path, "victim.tar", b"mine")
    manifest = json.loads((synthetic / "train/manifest.json").read_bytes())
    for name in ("../../victim.tar", str(victim), "..", "", "a/b.tar", 5, None):
        manifest["shards"][0]["name"] = name
        put(synthetic, "train/manifest.json", json.dumps(manifest).encode())
        before = contents(tmp_path)
        check_refused(command("mmdata", "synth", synthetic, *SYNTH, "--overwrite"))
        assert contents(tmp_path) == before


# Files: the arguments of a command without its output, the flag, a name, and a file of another kind.
FILES = {
    "tokenizer": (["tokenizer", "TRAIN", "--vocab-size", "300"], "--out", "t.model"),
    "answers": (["answers", "TRAIN", "--min-count", "1"], "--out", "answers.txt"),
    "sheet": (["inspect", "TRAIN", "--num-pictures", "2", "--processes", "1"], "--sheet", "sheet.png"),
    "sheet jpg": (["inspect", "TRAIN", "--num-pictures", "2", "--processes", "1"], "--sheet", "sheet.JPG"),
    "report": (["inspect", "TRAIN", "--num-pictures", "2", "--processes", "1"], "--report", "report.html"),
}


def words_of(case: str, folder: Path) -> tuple[list[str], str, str]:
    words, flag, name = FILES[case]
    return [str(folder / "train") if word == "TRAIN" else word for word in words], flag, name


@pytest.mark.parametrize("case", FILES)
def test_a_file_is_replaced_only_when_asked_and_ours(case, drawn, tmp_path, command) -> None:
    words, flag, name = words_of(case, drawn)
    out = tmp_path / name
    assert command("mmdata", *words, flag, out).code == 0
    written = out.read_bytes()
    check_refused(command("mmdata", *words, flag, out), "is there already", "--overwrite")
    assert command("mmdata", *words, flag, out, "--overwrite").code == 0 and out.read_bytes() == written
    out.write_bytes(b"\x00mine")
    for overwrite in ([], ["--overwrite"]):
        check_refused(command("mmdata", *words, flag, out, *overwrite), name)
    picture = tmp_path / f"photo{out.suffix}"
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    check_refused(command("mmdata", *words, flag, picture, "--overwrite"), picture.name)
    assert out.read_bytes() == b"\x00mine" and sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [out.name, picture.name]
    )


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("case", FILES)
def test_a_file_is_never_an_input_a_folder_or_a_device(case, overwrite, drawn, tmp_path, command) -> None:
    words, flag, name = words_of(case, drawn)
    suffix = Path(name).suffix
    (tmp_path / f"folder{suffix}").mkdir()
    os.mkfifo(tmp_path / f"pipe{suffix}")
    linked(tmp_path / f"shard{suffix}", drawn / "train/train-000000.tar")
    linked(tmp_path / f"index{suffix}", drawn / "train/train-000001.tar.index")
    linked(tmp_path / f"manifest{suffix}", drawn / "train/manifest.json")
    linked(tmp_path / f"dead{suffix}", tmp_path / "gone")
    put(tmp_path, f"file{suffix}", b"mine")
    before = contents(drawn)
    for out in ("folder", "pipe", "shard", "index", "manifest", "dead", "file"):
        check_refused(
            command("mmdata", *words, flag, tmp_path / f"{out}{suffix}", *overwrite)
        ) if out != "file" else None
    check_refused(command("mmdata", *words, flag, tmp_path / f"file{suffix}" / f"x{suffix}", *overwrite), "no folder")
    assert contents(drawn) == before and (tmp_path / f"file{suffix}").read_bytes() == b"mine"


def test_a_merge_takes_no_name_that_came_meanwhile(pairs, tmp_path, command) -> None:
    words = build_words(pairs, tmp_path / "out")
    for part in ("0/2", "1/2"):
        assert command("mmdata", *words, "--part", part).code == 0
    for name in ("samples.parquet", "x.tar", "manifest.json", "shard-000001.tar.index"):
        path = put(tmp_path / "out", name, b"mine")
        before = contents(tmp_path)
        check_refused(command("mmdata", "merge", tmp_path / "out", "--processes", "1"), name)
        assert contents(tmp_path) == before
        path.unlink()
    put(tmp_path / "out", "notes.txt", b"mine")
    assert command("mmdata", "merge", tmp_path / "out", "--processes", "1").code == 0
    assert (tmp_path / "out/notes.txt").read_bytes() == b"mine" and command(
        "mmdata", "verify", tmp_path / "out"
    ).code == 0
