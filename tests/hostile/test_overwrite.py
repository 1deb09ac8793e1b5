"""Outputs of commands beside, over and inside what exists: foreign files stay byte-identical, inputs and runs too."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.hostile.conftest import Ended

Command = Callable[..., Ended]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; links by where they lead."""
    return {
        str(path.relative_to(folder)): os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def check_refused(ended: Ended, *fragments: str) -> None:
    assert ended.code == 2, (ended.out, ended.err)
    assert ended.err.count("\n") == 1 and all(fragment in ended.err for fragment in fragments), ended.err


# Exports.


def test_an_export_replaces_an_export_and_nothing_else(tiny, tiny_run, tmp_path, command) -> None:
    out = tmp_path / "models" / "a"
    assert command("mmtrain", "export", tiny_run, "--out", out).code == 0
    (tmp_path / "models" / "notes.txt").write_text("mine")
    run_before, before = contents(tiny_run), contents(out)
    check_refused(command("mmtrain", "export", tiny_run, "--out", out), "there already", "--overwrite")
    assert contents(out) == before
    assert command("mmtrain", "export", tiny_run, "--out", out, "--overwrite", "--dtype", "bf16").code == 0
    assert len(contents(out)["model.safetensors"]) < 0.6 * len(before["model.safetensors"])
    assert contents(out).keys() == before.keys() and contents(tiny_run) == run_before
    assert sorted(path.name for path in out.parent.iterdir()) == ["a", "notes.txt"]


def test_an_export_that_fails_leaves_nothing(tiny_run, tmp_path, command, monkeypatch) -> None:
    from mmtrain.hf.processing import VLBertProcessor

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr(VLBertProcessor, "save_pretrained", fail)
    before = contents(tmp_path)
    check_refused(command("mmtrain", "export", tiny_run, "--out", tmp_path / "out"), "No space left on device")
    assert contents(tmp_path) == before and not list(tmp_path.glob("*out*"))


def test_an_export_to_a_name_that_is_no_utf_8(tiny_run, tmp_path, command) -> None:
    out = tmp_path / os.fsdecode(b"d\xe9t")
    assert command("mmtrain", "export", tiny_run, "--out", out).code == 0
    assert (out / "README.md").read_text() and (out / "tokenizer.model").exists()


def test_reshard_adds_to_no_file_and_no_checkpoints(tiny_run, tmp_path, command) -> None:
    (tmp_path / "f.txt").write_text("mine")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "checkpoints").write_text("mine")
    before = contents(tmp_path)
    for target in (tmp_path / "f.txt", tmp_path / "f.txt/x", tiny_run / "checkpoints", tmp_path / "x", tiny_run):
        check_refused(command("mmtrain", "reshard", tiny_run, "--to", target))
        assert contents(tmp_path) == before
    assert command("mmtrain", "reshard", tiny_run, "--to", tmp_path / "new").code == 0
    assert shutil.rmtree(tmp_path / "new") is None and contents(tmp_path) == before


# Sets of shards. Expected: an exit code and a fragment of the sentence; foreign files stay in any case.

FOREIGN = {
    "a table": ("samples.parquet", b"mine"),
    "rows left out": ("left_out.jsonl", b'{"mine": 1}\n'),
    "a list": ("left_out.jsonl", b"[1]\n"),
    "a manifest": ("manifest.json", b'{"name": "an extension"}'),
    "no manifest": ("manifest.json", b"[" * 100_000),
    "a tar": ("backup-of-thesis.tar", b"mine"),
    "a tar of our name": ("shard-000000.tar", b"mine"),
    "an index": ("shard-000000.tar.index", b"mine"),
    "work": (".work/notes.txt", b"mine"),
    "a plan": (".work/plan.json", b"{}"),
}
BESIDE = {
    "notes": ("notes.txt", b"mine"),
    "a partial": (".thesis.partial", b"mine"),
    "an index of another": ("other.tar.index", b"mine"),
    "an apple": ("._x.tar", b"\0\5\26\7"),
    "pictures": ("pics/a/0.jpg", b"mine"),
    "a tokenizer": ("tokenizer.model", b"mine"),
    "a hidden folder": (".git/config", b"mine"),
    "one of our names elsewhere": ("sub/manifest.json", b"mine"),
    "a jsonl": ("rows.jsonl", b"{}\n"),
    "no utf-8": (os.fsdecode(b"d\xe9t.txt"), b"mine"),
}


def build_words(table: Path, out: Path, *words: object) -> list[object]:
    return ["build", table, out, "--processes", "1", "--samples-per-shard", "2", *words]


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Five pairs."""
    for number in range(5):
        put(tmp_path, f"in/{number}.png", b"")
        Image.new("RGB", (24, 16), (number * 40, 80, 160)).save(tmp_path / f"in/{number}.png")
    lines = [f"{number}.png,a card number {number}" for number in range(5)]
    return put(tmp_path, "in/t.csv", "\n".join(["image,caption", *lines, ""]).encode())


@pytest.fixture
def built(table: Path, tmp_path: Path, command: Command) -> Path:
    """A set of three shards."""
    assert command("mmdata", *build_words(table, tmp_path / "out")).code == 0
    return tmp_path / "out"


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("case", FOREIGN)
def test_a_build_never_takes_a_name_that_is_not_ours(case, overwrite, table, tmp_path, command) -> None:
    name, content = FOREIGN[case]
    path = put(tmp_path / "out", name, content)
    before = contents(tmp_path)
    ended = command("mmdata", *build_words(table, tmp_path / "out", *overwrite))
    check_refused(ended, path.name if ".work" not in name else ".work")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("case", FOREIGN)
def test_an_old_set_and_a_foreign_file_stay_together(case, built, table, tmp_path, command) -> None:
    name, content = FOREIGN[case]
    if name == "shard-000000.tar" or "manifest" in name:
        (built / "manifest.json").unlink()
    put(built, name, content)
    before = contents(tmp_path)
    ended = command("mmdata", *build_words(table, built, "--overwrite"))
    if name == "shard-000000.tar.index" or name == ".work/plan.json":
        check_refused(ended)
    assert ended.code == 2 and contents(tmp_path) == before, ended


@pytest.mark.parametrize("case", BESIDE)
def test_foreign_content_beside_a_set_survives_an_overwrite(case, built, table, tmp_path, command) -> None:
    name, content = BESIDE[case]
    path = put(built, name, content)
    (built / "a link").symlink_to(table)
    names = {one for one in contents(built) if one.startswith("shard") or "." in one}
    ended = command("mmdata", *build_words(table, built, "--overwrite", "--samples-per-shard", "5"))
    assert ended.code == 0, ended.err
    assert path.read_bytes() == content and os.readlink(built / "a link") == str(table)
    gone = {f"shard-00000{number}.tar{suffix}" for number in (1, 2) for suffix in ("", ".index")}
    assert contents(built).keys() == (names | {"a link"}) - gone
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert command("mmdata", "verify", built).code == 0


@pytest.mark.parametrize("case", BESIDE)
def test_foreign_content_is_no_obstacle_to_a_first_build(case, table, tmp_path, command) -> None:
    path = put(tmp_path / "out", *BESIDE[case])
    assert command("mmdata", *build_words(table, tmp_path / "out")).code == 0
    assert path.read_bytes() == BESIDE[case][1]


# Inputs that an overwrite would take along: each a function of the folders that gives arguments after OUT.
INSIDE = {
    "itself": lambda out, tmp: [out],
    "by another name": lambda out, tmp: [f"{out}/../{out.name}"],
    "one shard": lambda out, tmp: [out / "shard-000000.tar"],
    "a pattern": lambda out, tmp: [f"{out}/*.tar"],
    "braces": lambda out, tmp: [f"{out}/shard-{{000000..000002}}.tar"],
    "a link to it": lambda out, tmp: [linked(tmp / "link", out)],
    "a folder of links": lambda out, tmp: [linked(tmp / "links" / "a.tar", out / "shard-000001.tar").parent],
    "a table in it": lambda out, tmp: [put(out, "t.csv", (tmp / "in/t.csv").read_bytes()), "--image-root", tmp / "in"],
    "its samples.parquet": lambda out, tmp: [out / "samples.parquet"],
    "a file address": lambda out, tmp: [f"file://{out}/shard-000000.tar"],
    "missing": lambda out, tmp: [tmp / "nothere.csv"],
    "bad header": lambda out, tmp: [put(tmp, "bad.csv", b"picture,caption\na,b\n")],
    "nothing usable": lambda out, tmp: [put(tmp, "none.csv", b"image,caption\nnowhere.jpg,b\n")],
    "retried": lambda out, tmp: [tmp / "in/t.csv", "--retry-failed", out],
    "against": lambda out, tmp: [tmp / "in/t.csv", "--dedup", "exact", "--against", out],
    "against a link": lambda out, tmp: [tmp / "in/t.csv", "--dedup", "exact", "--against", linked(tmp / "l", out)],
    "against nothing": lambda out, tmp: [tmp / "in/t.csv", "--dedup", "exact", "--against", tmp / "in"],
}


def linked(path: Path, target: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)
    return path


@pytest.mark.parametrize("case", INSIDE)
def test_an_overwrite_never_costs_an_input(case: str, built: Path, tmp_path: Path, command: Command) -> None:
    source, *words = INSIDE[case](built, tmp_path)
    before = contents(tmp_path)
    check_refused(command("mmdata", *build_words(source, built, "--overwrite", *words)))
    assert contents(tmp_path) == before
    assert command("mmdata", "verify", built).code == 0


def test_an_overwrite_through_a_link_keeps_the_link(built, table, tmp_path, command) -> None:
    linked(tmp_path / "link", built)
    assert command("mmdata", *build_words(table, tmp_path / "link", "--overwrite", "--resize", "16")).code == 0
    assert (tmp_path / "link").is_symlink() and command("mmdata", "verify", built).code == 0


def test_the_folder_one_is_in_is_not_swapped(built, table, tmp_path, command, monkeypatch) -> None:
    monkeypatch.chdir(built)
    before = contents(tmp_path)
    check_refused(command("mmdata", *build_words(table, ".", "--overwrite")), "the folder you are in")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", [b"d\xe9t", b"a [v2]{x,y}*?", b"-x", b"%20#a", b"\n\x1b[31m"])
def test_odd_names_of_out_are_written_and_overwritten(name, table, tmp_path, command) -> None:
    out = tmp_path / "sets" / os.fsdecode(name)
    for words in ([], ["--overwrite"]):
        assert command("mmdata", *build_words(table, out, *words)).code == 0
    assert {path.name for path in out.parent.iterdir()} == {out.name}
    assert command("mmdata", "verify", out).code == 0
    assert command("mmdata", *build_words(out, tmp_path / "again")).code == 0


def test_a_build_that_fails_leaves_the_old_set(built, table, tmp_path, command, monkeypatch) -> None:
    from data_tools import samples

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "shard-000001.tar")

    before = contents(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(samples, "write_shard", fail)
        ended = command("mmdata", *build_words(table, built, "--overwrite", "--resize", "16"))
    check_refused(ended, "shard-000001.tar", "No space left")
    after = contents(tmp_path)
    assert {name: content for name, content in after.items() if ".work" not in name} == before
    assert command("mmdata", "verify", built).code == 0
    # Without the flag nothing that exists is touched; with it the build goes on.
    check_refused(command("mmdata", *build_words(table, built, "--resize", "16")), "already holds 3 shards")
    assert command("mmdata", *build_words(table, built, "--overwrite", "--resize", "16")).code == 0
    assert not (built / ".work").exists() and contents(built).keys() == {
        name.removeprefix("out/") for name in before if name.startswith("out/")
    }


@pytest.mark.parametrize("moment", range(1, 26, 2))
def test_a_kill_amid_an_overwrite_leaves_old_or_new(moment, built, table, tmp_path, command, monkeypatch) -> None:
    """A kill at each change of a name: the set can be read at once, and the same command ends with the new one."""
    put(built, "notes.txt", b"mine")
    put(built, "pics/0.jpg", b"mine")
    left = [moment]

    def counted(call):
        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return call(*args, **kwargs)

        return wrapped

    words = build_words(table, built, "--overwrite", "--resize", "16", "--samples-per-shard", "1")
    with monkeypatch.context() as patched:
        from mmtrain.io import exchange

        for name in ("replace", "rename", "link", "unlink", "rmdir"):
            patched.setattr(os, name, counted(getattr(os, name)))
        patched.setattr(exchange, "_rename_exchange", counted(exchange._rename_exchange))
        command("mmdata", *words)
    assert command("mmdata", "verify", built).code == 0
    assert (built / "notes.txt").read_bytes() == b"mine"
    assert command("mmdata", *words).code == 0
    assert len(list(built.glob("*.tar"))) == 5 and command("mmdata", "verify", built).code == 0
    assert (built / "notes.txt").read_bytes() == (built / "pics/0.jpg").read_bytes() == b"mine"
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"} and not (built / ".work").exists()
