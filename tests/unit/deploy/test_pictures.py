"""Images by name: files, folders with their sub-folders, patterns, links."""

import os
from pathlib import Path

import pytest

from mmtrain.deploy.pictures import find_images
from mmtrain.io.errors import InputError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def found(name: str) -> list[str]:
    return [str(path) for path in find_images(name)]


def refusal(name: str) -> str:
    with pytest.raises(InputError, match="names no image") as caught:
        find_images(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_means_its_sub_folders_too_but_nothing_hidden() -> None:
    make("d/1.jpg", "d/a/2.PNG", "d/._1.jpg", "d/.h/3.jpg", "d/notes.txt", "d/4.heic")
    os.symlink("..", "d/a/up")
    assert found("d") == ["d/1.jpg", "d/4.heic", "d/a/2.PNG"] == found("d/")


def test_what_exists_is_meant_whatever_its_name_or_suffix() -> None:
    make("pics [2]/0.jpg", "a*b.jpg", "s{a,b}.jpg", "photo", "~")
    for name in ("a*b.jpg", "s{a,b}.jpg", "photo", "~"):
        assert found(name) == [name]
    assert found("pics [2]") == ["pics [2]/0.jpg"] == found("pics [2]/*.jpg")


def test_a_pattern_means_images_else_files_else_folders() -> None:
    make("d/1.jpg", "d/1.txt", "d/e/2.jpg", "odd/1.jfif", "odd/2.jfif")
    assert found("d/*") == ["d/1.jpg"] and found("odd/*.jfif") == ["odd/1.jfif", "odd/2.jfif"]
    assert found("d/**") == ["d/1.jpg", "d/e/2.jpg"] and found("[d]") == ["d/1.jpg", "d/e/2.jpg"]
    assert found("{d/1.jpg,odd/1.jfif}") == ["d/1.jpg", "odd/1.jfif"]


def test_dead_links_stay_to_be_named_and_fifos_are_refused() -> None:
    make("d/1.jpg")
    os.symlink("gone.jpg", "d/2.jpg")
    assert found("d") == ["d/1.jpg", "d/2.jpg"]
    os.mkfifo("d/3.jpg")
    assert "'d/3.jpg', which is a FIFO" in refusal("d")
    assert "'d/3.jpg', which is a FIFO" in refusal("d/3.jpg")


@pytest.mark.parametrize(
    "name", ["", "none.jpg", "none/*.jpg", "empty", "a" * 400, "x\0", "http://h/x.jpg", "[.jpg", "{a"]
)
def test_a_name_without_images_is_one_sentence(name: str) -> None:
    Path("empty").mkdir()
    refusal(name)
