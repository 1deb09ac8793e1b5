"""The same few steps under each launcher, what a run folder holds, and scores found again from it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.doors.conftest import Prepared
from tests.doors.launched import LAUNCHERS, launch

pytestmark = pytest.mark.timeout(600)  # the first test waits for three runs
NUM_STEPS = 4
FIELDS = {
    "step", "loss", "loss_mlm", "loss_itc", "loss_itm", "loss_lm", "grad_norm", "lr", "temperature", "samples",
    "samples_per_second", "tokens_per_second", "step_seconds", "tflops_per_device", "mfu", "data_wait_seconds",
}  # fmt: skip
SAME = ("loss", "loss_mlm", "loss_itc", "loss_itm", "loss_lm", "grad_norm", "temperature")
SCORES = {
    *(f"{way}_recall_at_{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)),
    "itm_accuracy", "masked_token_accuracy", "lm_perplexity", "num_pairs",
}  # fmt: skip
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """A run that has ended: its folder and what it said."""

    folder: Path
    said: str

    def rows(self) -> Rows:
        """Every row of its log."""
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]

    def steps(self) -> Rows:
        """The rows of its optimizer steps."""
        return [row for row in self.rows() if "eval" not in row]

    def scores(self) -> Rows:
        """The rows of its evaluations."""
        return [row for row in self.rows() if "eval" in row]


@pytest.fixture(scope="module")
def runs(prepared: Prepared) -> dict[str, Run]:
    """The run under each launcher: the same global batch is one block for one process as for two."""
    found = {}
    for launcher in LAUNCHERS:
        folder = prepared.folder / launcher
        alone = ["train.micro_batch_size=16"] if launcher == "python" else []
        ended = launch(launcher, "pretrain", ["--config", prepared.config, f"run_dir={folder}", *alone])
        assert ended.code == 0, ended.said
        found[launcher] = Run(folder, ended.said)
    return found


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_each_step_is_a_row_with_the_promised_fields(launcher: str, runs: dict[str, Run]) -> None:
    steps = runs[launcher].steps()
    assert [row["step"] for row in steps] == list(range(1, NUM_STEPS + 1))
    assert [row["samples"] for row in steps] == [16, 32, 48, 64]
    for row in steps:
        assert set(row) >= FIELDS
        assert all(row[name] > 0 for name in FIELDS - {"mfu", "data_wait_seconds"}), row
        assert row["loss"] == pytest.approx(sum(row[name] for name in SAME[1:5]), rel=1e-5)


@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_two_ranks_of_either_launcher_give_the_losses_of_one_process(launcher: str, runs: dict[str, Run]) -> None:
    for row, wanted in zip(runs[launcher].steps(), runs["python"].steps(), strict=True):
        assert {name: row[name] for name in SAME} == pytest.approx({name: wanted[name] for name in SAME}, rel=1e-4)


def test_the_held_out_scores_are_logged_amid_the_run_and_at_its_end(runs: dict[str, Run]) -> None:
    for run in runs.values():
        assert [(row["step"], row["eval"]) for row in run.scores()[:4]] == [  # `evaluate` of another test adds some
            (3, "heldout"), (3, "twins"), (4, "heldout"), (4, "twins"),
        ]  # fmt: skip
        last = run.scores()[2]
        assert set(last) == SCORES | {"step", "eval"}
        assert last["num_pairs"] == 49
        assert all(0 <= last[name] <= 1 for name in SCORES - {"num_pairs", "lm_perplexity"})


def test_one_process_and_two_find_nearly_the_same_scores(runs: dict[str, Run]) -> None:
    wanted = runs["python"].scores()[-2]
    for launcher in ("torchrun", "deepspeed"):
        found = runs[launcher].scores()[-2]
        assert found["lm_perplexity"] == pytest.approx(wanted["lm_perplexity"], rel=1e-3)
        # A rounding may turn one near tie among the 49 pairs, and the last negatives drawn may differ.
        recalls = [name for name in SCORES if "recall" in name]
        assert {name: found[name] for name in recalls} == pytest.approx(
            {name: wanted[name] for name in recalls}, abs=0.05
        )


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_run_folder_holds_all_that_a_run_leaves(launcher: str, runs: dict[str, Run], prepared: Prepared) -> None:
    folder = runs[launcher].folder
    names = {
        "config.yaml",
        "tokenizer.model",
        "log.jsonl",
        "tensorboard",
        "checkpoints",
        "retrieved.png",
        "lock",
        "status.json",
        "endings",
    }
    assert {path.name for path in folder.iterdir()} == names
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["hidden_size"] == 32
    assert (folder / "tokenizer.model").read_bytes() == (prepared.folder / "set" / "tokenizer.model").read_bytes()
    assert (folder / "checkpoints" / "latest").read_text().strip() == "step-00000004"
    assert [path.name[:9] for path in (folder / "tensorboard").iterdir()] == ["events.ou"]
    with Image.open(folder / "retrieved.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 900  # four pictures side by side


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_run_says_each_step_and_ends_with_the_scores_and_where_everything_is(
    launcher: str, runs: dict[str, Run]
) -> None:
    run = runs[launcher]
    for step in range(1, NUM_STEPS + 1):
        assert run.said.count(f"step {step}/4") == 1, run.said
    for words in ("held-out scores", "image_to_text_recall_at_1", "run folder:", "TensorBoard:", "contact sheet:"):
        assert words in run.said, run.said
    assert "Traceback" not in run.said and "Warning" not in run.said, run.said


@pytest.mark.parametrize(("trained", "launcher"), [("python", "python"), ("deepspeed", "torchrun")])
def test_evaluate_finds_the_scores_of_the_end_of_the_run_again(
    trained: str, launcher: str, runs: dict[str, Run]
) -> None:
    run = runs[trained]
    before = run.scores()
    ended = launch(launcher, "evaluate", [run.folder])
    assert ended.code == 0, ended.said
    after = run.scores()[len(before) :]
    assert after == before[-2:]
    assert "held-out scores" in ended.said and str(run.folder) in ended.said
