"""Shards by name: folders, patterns, links, and what lies there and is not read."""

import os
from pathlib import Path

import pytest

from mmtrain.config.schema import DataConfig
from mmtrain.data.faults import DataError
from mmtrain.data.places import Access
from mmtrain.data.shards import open_shards
from mmtrain.data.sources import find_shards, list_shards
from tests.unit.data.made import files_of, write_tar


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def found(*names: str) -> list[str]:
    return [str(path) for path in find_shards(names)]


def refusal(*names: str) -> str:
    with pytest.raises(DataError) as caught:
        find_shards(names)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_hidden_names_do_not_count_and_suffixes_are_of_any_case(here):
    make("s/a.tar", "s/B.TAR", "s/._a.tar", "s/.work/c.tar", "s/manifest.json")
    assert found("s") == ["s/B.TAR", "s/a.tar"] == found("s/*")
    assert found("s/*.TAR") == ["s/B.TAR"] and found("s/._a.tar") == ["s/._a.tar"]
    make("h/._x.tar")
    assert "hidden names do not count (1, '._x.tar' first)" in refusal("h")


def test_shards_in_sub_folders_are_said_not_read(here, caplog):
    make("s/a.tar", "s/more/b.tar", "s/texts/b.txt", "t/u/c.tar")
    assert found("s") == ["s/a.tar"]
    assert [record.getMessage() for record in caplog.records] == [
        "'s': the shards in its sub-folders are not read: 's/more'"
    ]
    assert "its sub-folders hold some: name 't/u'" in refusal("t")


def test_a_pattern_takes_tars_else_those_of_its_folders(here):
    make("sets/a/1.tar", "sets/b/2.tar", "mixed/c.tar", "mixed/sub/d.tar", "texts/e.txt")
    assert found("sets/*") == ["sets/a/1.tar", "sets/b/2.tar"] == found("sets/{a,b}")
    assert found("mixed/*") == ["mixed/c.tar"]
    assert found("mixed/**") == ["mixed/c.tar", "mixed/sub/d.tar"]
    assert "it matches 'texts/e.txt'" in refusal("texts/*")


def test_a_dead_link_or_a_fifo_among_shards_is_refused(here):
    make("s/a.tar", "t/a.tar")
    os.symlink("gone.tar", "s/b.tar")
    assert "'s/b.tar', which is a dead link to 'gone.tar'" in refusal("s")
    assert "'s/b.tar', which is a dead link to 'gone.tar'" in refusal("s/*.tar")
    os.mkfifo("t/b.tar")
    assert "'t/b.tar', which is a FIFO" in refusal("t")
    os.symlink("b.txt", "t/c.txt")  # not a shard, so nobody's
    assert found("t/a.tar") == ["t/a.tar"]


def test_links_to_shards_are_shards_and_one_file_counts_once(here):
    make("s/a.tar", "s/b.tar")
    os.symlink("s", "link")
    os.mkdir("l")
    os.symlink("../s/a.tar", "l/x.tar")
    assert found("l") == ["l/x.tar"] and found("link") == ["link/a.tar", "link/b.tar"]
    assert "one file twice, 's/a.tar' and 'l/x.tar'" in refusal("s", "l")
    assert "one file twice, 's/a.tar' and 'link/a.tar'" in refusal("s", "link")
    assert "'s/a.tar' 2 times" in refusal("s/*.tar", "s")


def test_a_folder_named_in_any_way_is_known_as_named(here):
    make("s{a,b}/1.tar", "t/2.tar")
    assert list_shards(["s{a,b}/", "t/*.tar"], "SHARDS").folders == (Path("s{a,b}"),)
    assert list_shards([f"file://{here}/t"], "SHARDS").folders == (here / "t",)


@pytest.mark.parametrize("place", ["http://h/x.tar", "S3://b/x", "pipe:cat x.tar"])
def test_commands_on_local_files_say_so_of_addresses(place):
    with pytest.raises(DataError, match="an address; this command reads local files only"):
        find_shards([place], "SHARDS")


def test_a_file_that_is_called_like_a_command_is_read_not_run(here):
    write_tar(Path("pipe:touch ran;.tar"), {"k": files_of(0)})
    shards = open_shards(["*.tar"], Access(DataConfig()))
    assert shards.locations == ("./pipe:touch ran;.tar",) and shards.num_samples == 1
    assert not Path("ran").exists()


def test_one_scan_lists_a_folder_whatever_its_size(here, monkeypatch):
    make(*[f"s/{number:04d}.tar" for number in range(300)])
    monkeypatch.setattr("os.readlink", None)
    stats = []
    stat = os.stat
    monkeypatch.setattr("os.stat", lambda *given, **how: stats.append(given) or stat(*given, **how))
    assert len(find_shards(["s"])) == 300
    assert len(stats) < 20
