"""Captions from the command line, and the examples of README and model card as they stand."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from mmtrain.generate import main
from tests.doors.launched import ROOT, Ended, launch
from tests.doors.test_export import pictures

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def run_dir(exported: Path) -> Path:
    return exported


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures, and a file that is none."""
    folder = tmp_path_factory.mktemp("album")
    for number, picture in enumerate(pictures(5)):
        picture.save(folder / f"{number}.{'png' if number == 3 else 'jpg'}")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def generate(*words: object) -> Ended:
    return launch("preloaded", "generate", words)


def captions(said: str) -> dict[str, str]:
    """By the file's name."""
    lines = [line.split("\t") for line in said.splitlines() if "\t" in line]
    return {Path(name).name: caption for name, caption in lines}


def test_a_folder_is_captioned_in_batches_and_what_is_no_picture_is_named(
    run_dir: Path, album: Path, tmp_path: Path
) -> None:
    ended = generate(run_dir / "export", album, "--batch-size", 2, "--jsonl", tmp_path / "captions.jsonl")
    assert ended.code == 1, ended.said
    assert set(captions(ended.said)) == {"0.jpg", "1.jpg", "2.jpg", "3.png", "4.jpg"}
    assert f"{album}/broken.jpg passed over: " in ended.said
    assert "1 of 6 images could not be read" in ended.said
    rows = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert {Path(row["image"]).name: row["caption"] for row in rows if "caption" in row} == captions(ended.said)
    assert [Path(row["image"]).name for row in rows if "error" in row] == ["broken.jpg"]


@pytest.mark.long
def test_a_run_a_pattern_and_one_file_give_the_same_captions_as_the_export(run_dir: Path, album: Path) -> None:
    from mmtrain.hf import VLBertForImageCaptioning

    ended = generate(run_dir, album / "[0-2].jpg")
    assert ended.code == 0, ended.said
    found = captions(ended.said)
    model = VLBertForImageCaptioning.from_pretrained(run_dir / "export")
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        with Image.open(album / name) as picture:
            assert found[name] == model.generate(picture, num_beams=4)


@pytest.mark.long
def test_what_is_not_there_is_refused_in_a_sentence(run_dir: Path, album: Path) -> None:
    for words, sentence in (
        ([run_dir, album / "*.gif"], "names no image"),
        ([album, album], "is no export (it has no config.json) and no run"),
    ):
        refused = generate(*words)
        assert refused.code == 2
        assert sentence in refused.said and "Traceback" not in refused.said


def test_captions_of_held_out_scenes_are_judged(run_dir: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(run_dir, tmp_path / "run"))  # others read its log
    ended = launch("preloaded", "evaluate", [run_dir, "--captions"])
    assert ended.code == 0, ended.said
    assert "held-out scores: captions" in ended.said
    row = json.loads((run_dir / "log.jsonl").read_text().splitlines()[-1])
    assert row["eval"] == "captions" and row["step"] == 3 and row["num_pairs"] == 49
    right = {name: row[f"caption_{name}_right"] for name in ("shape", "color", "size", "things", "place", "all")}
    assert all(round(share * 49) == pytest.approx(share * 49) for share in right.values()), right
    assert right["all"] <= min(right["things"], right["place"]), right
    assert right["things"] <= min(right["shape"], right["color"], right["size"]), right


def test_the_examples_of_readme_and_card_run_as_they_stand(
    run_dir: Path, album: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (run_dir / "export/README.md").read_text()
    examples = BLOCK.findall(card)
    assert len(examples) == 3
    examples += [one for one in BLOCK.findall((ROOT / "README.md").read_text()) if "mmtrain.hf" in one]
    monkeypatch.chdir(album)
    for name, source in (("picture.jpg", "0.jpg"), ("other.jpg", "1.jpg")):
        (album / name).write_bytes((album / source).read_bytes())
    found: dict[str, object] = {}
    for example in examples:
        exec(example.replace("runs/demo/export", f"{run_dir}/export"), found)
    assert main([f"{run_dir}/export", "picture.jpg", "--beams", "4", "--max-length", "20"]) == 0
    assert captions(capsys.readouterr().out)["picture.jpg"] == found["caption"]
    question = "what color is the star?"
    assert main([f"{run_dir}/export", "picture.jpg", "--ask", question, "--beams", "1"]) == 0
    assert captions(capsys.readouterr().out)["picture.jpg"] == found["answer"]
    both = found["model"].retrieve("a tiny red star above a big blue ring", found["pictures"], top_k=2)
    assert found["best"] == both[:1] and sorted(number for number, _ in both) == [0, 1]
    assert both[0][1] >= both[1][1]
