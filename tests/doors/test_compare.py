"""Scores of runs side by side, through the door."""

import json
import sys
from pathlib import Path

from tests.doors.launched import Ended, run_program


def log_of(run_dir: Path, **scores: float) -> Path:
    """A run folder as far as it is asked for its scores: an early and a late evaluation."""
    run_dir.mkdir(parents=True)
    rows = [
        {"step": 1, "loss": 3.0},
        {"step": 1, "eval": "vqa", "vqa_accuracy": 0.01},
        {"step": 9, "eval": "vqa", **scores},
    ]
    (run_dir / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run_dir


def compare(*words: object) -> Ended:
    return run_program([sys.executable, "-m", "mmtrain.cli", "compare", *words])


def test_last_scores_stand_beside_each_other_and_the_prior_with_no_name_cut_short(tmp_path: Path) -> None:
    one = log_of(tmp_path / "pretrained/vqa", vqa_accuracy=0.75, constant_vqa_accuracy=0.25)
    other = log_of(tmp_path / "random/vqa", vqa_accuracy=0.5, constant_vqa_accuracy=0.25)
    ended = compare(one.parent, other.parent, "--json", tmp_path / "table.jsonl")
    assert ended.code == 0, ended.said
    (line,) = [line for line in ended.said.splitlines() if "vqa_accuracy" in line]
    assert [word for word in line.split() if "%" in word] == ["25.0%", "75.0%", "50.0%"]
    assert "…" not in ended.said
    (row,) = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()]
    assert row["values"] == {str(one.parent): 0.75, str(other.parent): 0.5} and row["prior"] == 0.25


def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path) -> None:
    ended = compare(tmp_path)
    assert ended.code == 2 and "is no run and holds none" in ended.said and "Traceback" not in ended.said
