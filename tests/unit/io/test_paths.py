"""Names of users: exact names first, then home folders, braces and patterns."""

import os
from pathlib import Path

import pytest

from mmtrain.io.errors import InputError
from mmtrain.io.paths import expand_url, expand_user, identity, resolve


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(name: str) -> list[str]:
    return [str(entry.path) for entry in resolve(name, "INPUT")]


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught:
        resolve(name, "INPUT")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_exists_is_meant_before_any_pattern(here):
    make("s{a,b}/1.tar", "sa/2.tar", "sb/3.tar", "x[1].tar", "x1.tar", "*", "q?", "q1")
    assert found("s{a,b}") == ["s{a,b}"] and found("x[1].tar") == ["x[1].tar"]
    assert found("*") == ["*"] and found("q?") == ["q?"]
    assert found("s{a,b}/*.tar") == ["s{a,b}/1.tar"]
    assert found("x[1].ta*") == ["x1.tar"]


def test_folders_of_a_pattern_are_themselves_where_they_exist(here):
    make("d [v2]/a.csv", "d [v2]/b.csv", "d v/c.csv", "s{x/1.tar", "a/[b]/1.tar", "a/b/2.tar")
    assert found("d [v2]/*.csv") == ["d [v2]/a.csv", "d [v2]/b.csv"]
    assert found("s{x/*") == ["s{x/1.tar"]
    assert found("*/[b]/*") == ["a/[b]/1.tar"]


def test_braces_keep_their_order_and_each_name_is_resolved(here):
    make("s/10.tar", "s/2.tar", "t[0]/a.tar", "t0/b.tar")
    assert found("s/{2,10}.tar") == ["s/2.tar", "s/10.tar"]
    assert found("{t[0],s}/*.tar") == ["t[0]/a.tar", "s/10.tar", "s/2.tar"]
    assert found("s/{2,2}.tar") == ["s/2.tar"]
    assert "'s/11.tar' (from 's/{10..11}.tar'), which does not exist" in refusal("s/{10..11}.tar")


def test_patterns_match_any_depth_once_and_no_hidden_names(here):
    make("a/b/1.tar", "a/.h/2.tar", "a/._1.tar", "a/3.tar")
    Path("a/b/up").symlink_to("../..")
    Path("a/b/other").symlink_to("../.h")
    assert found("a/**/*.tar") == ["a/3.tar", "a/b/1.tar", "a/b/other/2.tar"]
    assert found("a/._*.tar") == ["a/._1.tar"]
    assert found(f"{here}/a/*.tar") == [f"{here}/a/3.tar"]


def test_home_folders_are_expanded_unless_the_name_exists(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    make("home/x.tar", "home/y.tar")
    assert found("~/x.tar") == [f"{here}/home/x.tar"]
    assert found("~/{x,y}.tar") == [f"{here}/home/x.tar", f"{here}/home/y.tar"]
    assert found("~/*.tar") == [f"{here}/home/x.tar", f"{here}/home/y.tar"]
    make("~/x.tar")
    assert found("~/x.tar") == ["~/x.tar"] and expand_user("~/x.tar") == "~/x.tar"
    assert expand_user("a~b") == "a~b"
    assert f"{here}/home/z.tar" in refusal("~/z.tar")


def test_names_that_are_not_utf_8_are_names(here):
    make(os.fsdecode(b"d\xe9t/1.tar"))
    assert found(os.fsdecode(b"d\xe9t/*")) == [os.fsdecode(b"d\xe9t/1.tar")]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "INPUT is empty"),
        ("data/trian", "'data' holds 'train'"),
        ("data/train/x-*.tar", "matches nothing"),
        ("none/deeper/x", "this folder holds 'data'"),
        ("s{a", "unbalanced braces"),
        ("{1..3", "unbalanced braces"),
        ("{0..999999999}", "more than 1000000 names"),
        ("{a..z}" * 8, "more than 1000000 names"),
        ("{{a,b}{a,b}}" * 20, "more than 1000000 names"),
        ("a" * 400, "(400 characters), which cannot be looked at: File name too long"),
        ("a" * 400 + "*", "(401 characters), which matches nothing"),
        ("{" + "a" * 400 + ",b}", "File name too long"),
        ("x\0y", "null byte"),
        ("$HOME/x", "variables such as $HOME are not expanded"),
        ("data/train/file/x", "does not exist"),
        ("~nobody-of-that-name/x", "does not exist"),
    ],
)
def test_a_name_that_means_nothing_is_one_sentence(here, name, sentence):
    make("data/train/file")
    assert sentence in refusal(name)


def test_dead_links_circles_and_fifos_are_refused_by_name(here):
    os.symlink("gone.tar", "dead.tar")
    os.symlink("circle", "circle")
    os.mkfifo("pipe")
    assert (
        refusal("dead.tar") == "INPUT names 'dead.tar', which is a dead link to 'gone.tar'; remove it, or name another"
    )
    assert "'circle', which is a dead link to 'circle'" in refusal("circle")
    assert "'pipe', which is a FIFO" in refusal("pipe")
    assert [entry.kind for entry in resolve("[cdp]*", "INPUT")] == ["a dead link", "a dead link", "a FIFO"]


def test_two_names_of_one_file_have_one_identity(here):
    make("d/x.tar", "d/y.tar")
    os.symlink("d", "e")
    os.symlink("../d/x.tar", "d/z.tar")
    os.symlink("z.tar", "e/w.tar")
    places = {name: identity(resolve(name, "INPUT")[0], {}) for name in ("d/x.tar", "e/x.tar", "d/z.tar", "e/w.tar")}
    assert set(places.values()) == {f"{here}/d/x.tar"}
    assert identity(resolve("d/y.tar", "INPUT")[0], {}) == f"{here}/d/y.tar"


@pytest.mark.parametrize(
    ("address", "urls"),
    [
        ("HTTP://h/x-{0..1}.tar?s={a,b}#f", ["http://h/x-0.tar?s=%7Ba,b%7D", "http://h/x-1.tar?s=%7Ba,b%7D"]),
        ("http://h/{x y,\u00e9}.tar", ["http://h/x%20y.tar", "http://h/%C3%A9.tar"]),
        ("s3://b/{0..1}?.tar", ["s3://b/0?.tar", "s3://b/1?.tar"]),
        ("http://h/s{x.tar", ["http://h/s%7Bx.tar"]),
        ("pipe:cat x{0..1}", ["pipe:cat x0", "pipe:cat x1"]),
        ("pipe:awk '{' x", ["pipe:awk '{' x"]),
    ],
)
def test_braces_of_an_address_expand_in_its_path_alone(address, urls):
    assert expand_url(address, "data.train") == urls


def test_an_address_of_too_many_names_is_refused():
    with pytest.raises(InputError, match="more than 1000000 names"):
        expand_url("http://u:p@h/{0..99999999}", "data.train")
