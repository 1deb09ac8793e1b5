"""Runs side by side: the last of each score, with what one gets without looking beside it."""

import json
from pathlib import Path

import pytest

from mmtrain.compare import main
from mmtrain.io.errors import InputError
from mmtrain.monitor.results import Line, compared, last_scores, runs_of


def write_run(folder: Path, *rows: dict) -> Path:
    folder.mkdir(parents=True)
    steps = [{"step": 1, "loss": 2.0}, *rows]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    vqa = {"eval": "vqa", "vqa_accuracy": 0.8, "constant_vqa_accuracy": 0.25, "num_questions": 9}
    write_run(tmp_path / "good/vqa", vqa | {"step": 1, "vqa_accuracy": 0.1}, vqa | {"step": 2})
    write_run(tmp_path / "good/captions", {"step": 2, "eval": "captions", "cider_d": 0.7, "bleu_1": None})
    write_run(tmp_path / "bad/vqa", vqa | {"step": 2, "vqa_accuracy": 0.3})
    return tmp_path


def test_a_folder_is_a_run_or_holds_some(runs: Path) -> None:
    assert runs_of(runs / "good/vqa") == [runs / "good/vqa"]
    assert runs_of(runs / "good") == [runs / "good/captions", runs / "good/vqa"]
    with pytest.raises(InputError, match="is no run and holds none"):
        runs_of(runs)


def test_the_last_of_each_score_stands_beside_its_prior(runs: Path) -> None:
    good = last_scores(runs / "good/captions") | last_scores(runs / "good/vqa")
    lines = compared([good, last_scores(runs / "bad/vqa")], [])
    assert lines == [
        Line("captions", "cider_d", None, (0.7, None)),
        Line("vqa", "vqa_accuracy", 0.25, (0.8, 0.3)),
    ]
    assert compared([good], ["*_d"]) == [Line("captions", "cider_d", None, (0.7,))]


def test_the_door_prints_the_table_and_writes_its_lines(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = runs / "table.json"
    assert main([str(runs / "good"), str(runs / "bad"), "--scores", "vqa_*", "--json", str(out)]) == 0
    assert "80.0%" in capsys.readouterr().out
    (line,) = map(json.loads, out.read_text().splitlines())
    assert line["prior"] == 0.25 and line["values"] == {str(runs / "good"): 0.8, str(runs / "bad"): 0.3}
    assert main([str(runs / "good"), "--scores", "nothing"]) == 2
    assert "hold no held-out score that --scores names" in capsys.readouterr().err
