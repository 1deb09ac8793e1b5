"""A run that ended is started again by a user: with another meaning, for longer, on a disk that is too small."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doors.conftest import Prepared
from tests.doors.launched import Ended, launch
from tests.unit.data.made import train_tokenizer

NUM_STEPS = 4


def pretrain(prepared: Prepared, run_dir: Path, *words: str, launcher: str = "preloaded") -> Ended:
    given = ["--config", prepared.config, f"run_dir={run_dir}", "eval.every=0", "train.micro_batch_size=16", *words]
    return launch(launcher, "pretrain", given)


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def ended(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps."""
    run_dir = tmp_path_factory.mktemp("ended") / "run"
    done = pretrain(prepared, run_dir)
    assert done.code == 0, done.said
    return run_dir


@pytest.mark.timeout(600)
def test_every_change_of_meaning_is_shown_before_the_first_step(
    prepared: Prepared, ended: Path, tmp_path: Path
) -> None:
    captions = ["a red circle above a blue square", "two small green triangles below a large yellow star"] * 20
    changes = [
        "model.hidden_size=64",
        "train.global_batch_size=32",
        f"data.tokenizer={train_tokenizer(tmp_path / 'other.model', captions)}",
        f"data.train={prepared.folder}/set/heldout",
        "data.max_unknown_share=1.0",
        "train.num_steps=6",
    ]
    before = rows(ended)
    refused = pretrain(prepared, ended, *changes)
    assert refused.code == 2, refused.said
    for words in (
        "model.hidden_size: 32 -> 64",
        "train.global_batch_size: 16 -> 32",
        "data.tokenizer: sha256",
        "data.train: ",
        "--override-resume",
    ):
        assert words in refused.said, refused.said
    assert refused.said.count("mmtrain: ") == 1 and "Traceback" not in refused.said and "step 5" not in refused.said
    assert rows(ended) == before


@pytest.mark.timeout(600)
def test_a_run_goes_on_for_longer_with_a_change_that_was_allowed(
    prepared: Prepared, ended: Path, tmp_path: Path
) -> None:
    ended = Path(shutil.copytree(ended, tmp_path / "run"))
    before, attempt_before = rows(ended), json.loads((ended / "status.json").read_text())["attempt"]
    longer = ["train.num_steps=6", "train.learning_rate=2e-3", "--override-resume", "train.learning_rate"]
    done = pretrain(prepared, ended, *longer)
    assert done.code == 0, done.said
    assert f"going on after step {NUM_STEPS}" in done.said
    steps = [row["step"] for row in rows(ended) if "eval" not in row]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert rows(ended)[: len(before)] == before  # what was done stands as it was
    status = json.loads((ended / "status.json").read_text())
    assert (status["state"], status["attempt"]) == ("completed", attempt_before + 1)


def test_a_name_that_is_no_knob_is_not_allowed_to_change(prepared: Prepared, tmp_path: Path) -> None:
    refused = pretrain(prepared, tmp_path / "run", "--override-resume", "train.learnin_rate")
    assert refused.code == 2 and "did you mean train.learning_rate?" in refused.said, refused.said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that holds one checkpoint and the beginning of another."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2600k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_disk_that_fills_ends_the_run_in_one_sentence_with_the_older_checkpoint_whole(
    prepared: Prepared, small_disk: Path
) -> None:
    run_dir = small_disk / "run"
    words = ["checkpoint.save_every=2", "train.num_steps=40", "train.micro_batch_size=8"]
    done = pretrain(prepared, run_dir, *words, launcher="torchrun")
    assert done.code == 1, done.said  # torchrun's own code
    sentences = [line for line in done.said.splitlines() if line.startswith("mmtrain: ")]
    assert len(sentences) == 1 and "No space left on device" in sentences[0], done.said
    standing = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert standing[0] == "latest" and standing[1:] and not any(name.endswith(".partial") for name in standing)
    assert (run_dir / "checkpoints" / "latest").read_text().strip() == standing[-1]
    verified = launch("preloaded", "reshard", [run_dir, "--verify"])
    assert verified.code == 0 and "is what was written" in verified.said, verified.said
