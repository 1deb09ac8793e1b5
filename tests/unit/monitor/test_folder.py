"""The run folder and what evaluations leave in it: inputs, rows, the contact sheet, the table at the end."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmtrain.config.load import load_config
from mmtrain.config.places import with_absolute_places
from mmtrain.config.schema import RunConfig
from mmtrain.monitor.folder import RunFolder, scores_table
from mmtrain.monitor.log import read_rows
from mmtrain.monitor.meters import Meters
from mmtrain.monitor.pictures import RIGHT, WRONG
from mmtrain.records import EvalReport, StepReport

CAPTIONS = ("a red circle", "a blue star", None, "a white square")
REPORT = EvalReport(
    scores={"heldout": {"itm_accuracy": 0.75, "lm_perplexity": 12.5, "num_pairs": 4}, "twins": {"itc_accuracy": 0.5}},
    retrieved=(0, 3, 1),
)


def images(count: int) -> list[np.ndarray]:
    return [np.full((3, 8, 8), 50 * number + 40, np.uint8) for number in range(count)]


def meters(folder: RunFolder, plan: RunConfig, count: int = 3) -> Meters:
    known = {"num_devices": 1, "device_name": "cpu", "precision": "fp32", "captions": CAPTIONS}
    return folder.meters(plan, **known, images=images(count))


@pytest.fixture
def plan(tmp_path: Path) -> RunConfig:
    (tmp_path / "tokenizer.model").write_bytes(b"a tokenizer")
    return load_config(None, ["seed=5", f"data.tokenizer={tmp_path / 'tokenizer.model'}"])


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run", writes=True)
    yield folder
    folder.close()


def test_the_folder_can_be_read_without_what_the_run_was_given(folder: RunFolder, plan: RunConfig) -> None:
    folder.copy_inputs(plan)
    assert load_config(folder.path / "config.yaml", []) == with_absolute_places(plan)
    assert (folder.path / "tokenizer.model").read_bytes() == b"a tokenizer"


def test_a_rank_that_does_not_write_leaves_nothing(plan: RunConfig, tmp_path: Path, capsys) -> None:
    silent = RunFolder(tmp_path / "other", writes=False)
    silent.copy_inputs(plan)
    meters(silent, plan).record_evaluation(1, REPORT)
    silent.record_scores(1, REPORT)
    silent.show_results(REPORT)
    silent.close()
    assert not (tmp_path / "other").exists()
    assert capsys.readouterr() == ("", "")


def test_an_evaluation_is_a_row_for_each_of_its_names(folder: RunFolder, plan: RunConfig) -> None:
    meters(folder, plan).record_evaluation(3, REPORT)
    assert read_rows(folder.path) == [
        {"step": 3, "eval": "heldout", "itm_accuracy": 0.75, "lm_perplexity": 12.5, "num_pairs": 4},
        {"step": 3, "eval": "twins", "itc_accuracy": 0.5},
    ]


def test_the_rows_of_a_later_evaluation_are_the_same_as_those_in_the_run(folder: RunFolder, plan: RunConfig) -> None:
    meters(folder, plan).record_evaluation(3, REPORT)
    folder.record_scores(3, REPORT)
    rows = read_rows(folder.path)
    assert rows[:2] == rows[2:]


def test_the_contact_sheet_shows_each_image_and_is_drawn_anew(folder: RunFolder, plan: RunConfig) -> None:
    shown = meters(folder, plan)
    shown.record_evaluation(1, REPORT)
    first = np.asarray(Image.open(folder.path / "retrieved.png"))
    for color in (RIGHT, WRONG, *((50 * number + 40,) * 3 for number in range(3))):
        assert (first == np.array(color)).all(-1).any(), color
    shown.record_evaluation(2, EvalReport(scores={}, retrieved=(0, 1, 2)))
    second = np.asarray(Image.open(folder.path / "retrieved.png"))
    assert (second == np.array(RIGHT)).all(-1).any() and not (second == np.array(WRONG)).all(-1).any()


@pytest.mark.parametrize(("count", "retrieved"), [(0, ()), (0, (1,)), (3, ())])
def test_without_images_or_without_a_retrieval_there_is_no_sheet(
    folder: RunFolder, plan: RunConfig, count: int, retrieved: tuple[int, ...]
) -> None:
    meters(folder, plan, count).record_evaluation(1, EvalReport(scores={}, retrieved=retrieved))
    assert not (folder.path / "retrieved.png").exists()


def test_the_end_shows_the_scores_and_where_everything_is(folder: RunFolder, plan: RunConfig, capsys) -> None:
    meters(folder, plan)
    folder.show_results(REPORT)
    words = capsys.readouterr().out
    assert "75.0%" in words and "12.5" in words and "held-out scores: twins" in words
    assert [line.split(":")[0] for line in words.splitlines()[-3:]] == ["run folder", "TensorBoard", "contact sheet"]
    assert str(folder.path / "retrieved.png") in words  # in one piece, however narrow the terminal


def test_a_run_without_scores_still_says_where_its_folder_is(folder: RunFolder, capsys) -> None:
    folder.show_results(None)
    words = capsys.readouterr().out
    assert str(folder.path) in words and "contact sheet" not in words


def test_shares_are_percent_and_counts_and_perplexity_are_not() -> None:
    table = scores_table("heldout", {"itm_accuracy": 0.125, "lm_perplexity": 9.5, "num_pairs": 512})
    assert list(table.columns[1].cells) == ["12.5%", "9.5", "512"]


def test_a_run_without_contrast_logs_no_temperature(folder: RunFolder, plan: RunConfig) -> None:
    nothing_contrasts = StepReport({"loss": 1.0, "loss_mlm": 1.0}, 1.0, 1e-3, float("nan"), 4, 40, 1e6)
    meters(folder, plan).record(1, nothing_contrasts, step_seconds=1.0, data_wait_seconds=0.0)
    (line,) = (folder.path / "log.jsonl").read_text().splitlines()
    row = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert row["temperature"] is None
