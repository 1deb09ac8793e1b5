"""Outputs of commands beside, over and inside what exists: foreign files stay byte-identical, inputs and runs too."""

import os
from pathlib import Path

import pytest

from tests.hostile.outputs import Command, build_words, check_refused, contents, linked, put

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


@pytest.fixture
def built(pairs: Path, tmp_path: Path, command: Command) -> Path:
    """A set of three shards."""
    assert command("mmdata", *build_words(pairs, tmp_path / "out")).code == 0
    return tmp_path / "out"


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("case", FOREIGN)
def test_a_build_never_takes_a_name_that_is_not_ours(case, overwrite, pairs, tmp_path, command) -> None:
    name, content = FOREIGN[case]
    path = put(tmp_path / "out", name, content)
    before = contents(tmp_path)
    ended = command("mmdata", *build_words(pairs, tmp_path / "out", *overwrite))
    check_refused(ended, path.name if ".work" not in name else ".work")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("case", FOREIGN)
def test_an_old_set_and_a_foreign_file_stay_together(case, built, pairs, tmp_path, command) -> None:
    name, content = FOREIGN[case]
    if name == "shard-000000.tar" or "manifest" in name:
        (built / "manifest.json").unlink()
    put(built, name, content)
    before = contents(tmp_path)
    ended = command("mmdata", *build_words(pairs, built, "--overwrite"))
    if name == "shard-000000.tar.index" or name == ".work/plan.json":
        check_refused(ended)
    assert ended.code == 2 and contents(tmp_path) == before, ended


@pytest.mark.parametrize("case", BESIDE)
def test_foreign_content_beside_a_set_survives_an_overwrite(case, built, pairs, tmp_path, command) -> None:
    name, content = BESIDE[case]
    path = put(built, name, content)
    (built / "a link").symlink_to(pairs)
    names = {one for one in contents(built) if one.startswith("shard") or "." in one}
    ended = command("mmdata", *build_words(pairs, built, "--overwrite", "--samples-per-shard", "5"))
    assert ended.code == 0, ended.err
    assert path.read_bytes() == content and os.readlink(built / "a link") == str(pairs)
    gone = {f"shard-00000{number}.tar{suffix}" for number in (1, 2) for suffix in ("", ".index")}
    assert contents(built).keys() == (names | {"a link"}) - gone
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert command("mmdata", "verify", "--processes", "1", built).code == 0


@pytest.mark.parametrize("case", BESIDE)
def test_foreign_content_is_no_obstacle_to_a_first_build(case, pairs, tmp_path, command) -> None:
    path = put(tmp_path / "out", *BESIDE[case])
    assert command("mmdata", *build_words(pairs, tmp_path / "out")).code == 0
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


@pytest.mark.parametrize("case", INSIDE)
def test_an_overwrite_never_costs_an_input(case: str, built: Path, tmp_path: Path, command: Command) -> None:
    source, *words = INSIDE[case](built, tmp_path)
    before = contents(tmp_path)
    check_refused(command("mmdata", *build_words(source, built, "--overwrite", *words)))
    assert contents(tmp_path) == before
    assert command("mmdata", "verify", "--processes", "1", built).code == 0


def test_an_overwrite_through_a_link_keeps_the_link(built, pairs, tmp_path, command) -> None:
    linked(tmp_path / "link", built)
    assert command("mmdata", *build_words(pairs, tmp_path / "link", "--overwrite", "--resize", "16")).code == 0
    assert (tmp_path / "link").is_symlink() and command("mmdata", "verify", "--processes", "1", built).code == 0


def test_the_folder_one_is_in_is_not_swapped(built, pairs, tmp_path, command, monkeypatch) -> None:
    monkeypatch.chdir(built)
    before = contents(tmp_path)
    check_refused(command("mmdata", *build_words(pairs, ".", "--overwrite")), "the folder you are in")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", [b"d\xe9t", b"a [v2]{x,y}*?", b"-x", b"%20#a", b"\n\x1b[31m"])
def test_odd_names_of_out_are_written_and_overwritten(name, pairs, tmp_path, command) -> None:
    out = tmp_path / "sets" / os.fsdecode(name)
    for words in ([], ["--overwrite"]):
        assert command("mmdata", *build_words(pairs, out, *words)).code == 0
    assert {path.name for path in out.parent.iterdir()} == {out.name}
    assert command("mmdata", "verify", "--processes", "1", out).code == 0
    assert command("mmdata", *build_words(out, tmp_path / "again")).code == 0


def test_a_build_that_fails_leaves_the_old_set(built, pairs, tmp_path, command, monkeypatch) -> None:
    from data_tools import samples

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "shard-000001.tar")

    before = contents(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(samples, "write_shard", fail)
        ended = command("mmdata", *build_words(pairs, built, "--overwrite", "--resize", "16"))
    check_refused(ended, "shard-000001.tar", "No space left")
    after = contents(tmp_path)
    assert {name: content for name, content in after.items() if ".work" not in name} == before
    assert command("mmdata", "verify", "--processes", "1", built).code == 0
    # Without the flag nothing that exists is touched; with it the build goes on.
    check_refused(command("mmdata", *build_words(pairs, built, "--resize", "16")), "already holds 3 shards")
    assert command("mmdata", *build_words(pairs, built, "--overwrite", "--resize", "16")).code == 0
    assert not (built / ".work").exists() and contents(built).keys() == {
        name.removeprefix("out/") for name in before if name.startswith("out/")
    }


@pytest.mark.parametrize("moment", range(1, 26, 3))
def test_a_kill_amid_an_overwrite_leaves_old_or_new(moment, built, pairs, tmp_path, command, monkeypatch) -> None:
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

    words = build_words(pairs, built, "--overwrite", "--resize", "16", "--samples-per-shard", "1")
    with monkeypatch.context() as patched:
        from mmtrain.io import exchange

        for name in ("replace", "rename", "link", "unlink", "rmdir"):
            patched.setattr(os, name, counted(getattr(os, name)))
        patched.setattr(exchange, "_rename_exchange", counted(exchange._rename_exchange))
        command("mmdata", *words)
    assert command("mmdata", "verify", "--processes", "1", built).code == 0
    assert (built / "notes.txt").read_bytes() == b"mine"
    assert command("mmdata", *words).code == 0
    assert len(list(built.glob("*.tar"))) == 5 and command("mmdata", "verify", "--processes", "1", built).code == 0
    assert (built / "notes.txt").read_bytes() == (built / "pics/0.jpg").read_bytes() == b"mine"
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"} and not (built / ".work").exists()
