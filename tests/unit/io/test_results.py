"""JSON Lines files of results: refused before any work, whole after every line, kept until something whole is there."""

import errno
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmtrain.io.errors import InputError
from mmtrain.io.results import ResultFile


def opened(path: Path, *, overwrite: bool = False) -> ResultFile:
    return ResultFile(path, flag="--jsonl", overwrite=overwrite)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_line_is_in_the_file_when_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with opened(path) as file:
        assert not path.exists()
        for number in range(3):
            file.write({"number": number})
            assert len(rows(path)) == number + 1


def test_no_results_are_an_empty_file(tmp_path: Path) -> None:
    with opened(tmp_path / "a.jsonl"):
        pass
    assert (tmp_path / "a.jsonl").read_bytes() == b""


@pytest.mark.parametrize("case", ["folder", "no parent", "there", "dead link", "below a file"])
def test_what_cannot_be_written_is_refused_before_any_work(case: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    if case == "folder":
        path.mkdir()
    elif case == "no parent":
        path = tmp_path / "gone" / "a.jsonl"
    elif case == "there":
        path.write_text("mine")
    elif case == "dead link":
        path.symlink_to("nowhere")
    else:
        (tmp_path / "file").write_text("mine")
        path = tmp_path / "file" / "a.jsonl"
    with pytest.raises(InputError, match="--jsonl"):
        opened(path)
    assert case != "there" or path.read_text() == "mine"


def test_an_interruption_leaves_the_lines_so_far(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(KeyboardInterrupt), opened(path) as file:
        file.write({"number": 0})
        raise KeyboardInterrupt
    assert rows(path) == [{"number": 0}]


def test_an_overwrite_keeps_the_old_until_the_new_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"old": 1}')
    with pytest.raises(KeyboardInterrupt), opened(path, overwrite=True) as file:
        file.write({"number": 0})
        raise KeyboardInterrupt
    (left,) = set(tmp_path.iterdir()) - {path}
    assert path.read_text() == '{"old": 1}' and rows(left) == [{"number": 0}] and str(left) in capsys.readouterr().err
    with opened(path, overwrite=True) as file:
        file.write({"number": 1})
        assert path.read_text() == '{"old": 1}'
    assert rows(path) == [{"number": 1}]


def test_an_overwrite_follows_a_link_and_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "real.jsonl").write_text('{"old": 1}')
    (tmp_path / "a.jsonl").symlink_to("real.jsonl")
    with opened(tmp_path / "a.jsonl", overwrite=True) as file:
        file.write({"number": 1})
    assert (tmp_path / "a.jsonl").is_symlink() and rows(tmp_path / "real.jsonl") == [{"number": 1}]


def test_a_name_that_is_not_utf8_comes_back_exactly(tmp_path: Path) -> None:
    name = os.fsdecode(b"d\xe9t\n.jpg")
    with opened(tmp_path / "a.jsonl") as file:
        file.write({"image": name})
    (row,) = rows(tmp_path / "a.jsonl")
    assert os.fsencode(row["image"]) == b"d\xe9t\n.jpg"


def test_a_device_is_written_to_as_it_is(tmp_path: Path) -> None:
    with opened(Path("/dev/null")) as file:
        file.write({"number": 0})
    with pytest.raises(OSError, match="/dev/full"), opened(Path("/dev/full")) as file:
        file.write({"number": 0})
    assert Path("/dev/null").is_char_device() and Path("/dev/full").is_char_device()


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow over 100 bytes: writes fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("width", [40, 200])
def test_a_full_disk_leaves_whole_lines_or_no_file(width: int, tmp_path: Path, small_files: None) -> None:
    path, written = tmp_path / "a.jsonl", 0
    with pytest.raises(OSError, match=r"a\.jsonl") as found, opened(path) as file:
        while True:
            file.write({"text": "x" * width})
            written += 1
    assert found.value.errno == errno.EFBIG
    assert written == (1 if width == 40 else 0) and (len(rows(path)) == written if written else not path.exists())


@pytest.mark.parametrize(
    "content", [b"\xff\xd8\xff\xe0 JPEG", b"image,caption\na.jpg,x\n", b"[1]\n", b"PAR1"], ids=ascii
)
def test_an_overwrite_takes_no_file_that_is_no_json_lines(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "0.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a file of JSON lines: --overwrite replaces only those"):
        opened(path, overwrite=True)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b'{"image": "a.jpg"}\n{"torn'], ids=ascii)
def test_an_overwrite_takes_results_of_before_and_empty_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with opened(path, overwrite=True) as file:
        file.write({"number": 1})
    assert rows(path) == [{"number": 1}]


@pytest.mark.parametrize("name", ["log.jsonl", "status.json", "x/../log.jsonl"])
def test_an_overwrite_takes_no_file_of_a_run(name: str, tmp_path: Path) -> None:
    for folder in ("checkpoints", "x"):
        (tmp_path / folder).mkdir()
    path = tmp_path / name
    path.write_text('{"step": 1}\n')
    with pytest.raises(InputError, match="a file that a run writes itself"):
        opened(path, overwrite=True)
    assert rows(path) == [{"step": 1}]
