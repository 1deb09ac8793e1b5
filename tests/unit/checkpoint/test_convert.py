"""`mmtrain reshard` on a checkpoint written by hand: what it says, what it finds, and what it writes."""

from pathlib import Path

import pytest
import torch

from mmtrain.checkpoint.convert import open_checkpoint, stored_in
from mmtrain.reshard import main
from tests.unit.checkpoint.made import WHOLE, Trained, keeper_of, loaded, saved, whole


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with a checkpoint of two weights and one moment."""
    run_dir, run = tmp_path / "run", Trained(0.3)
    run.parts.append((whole("exp_avg/vector", (5,)), torch.full((5,), 0.3)))
    keeper = keeper_of(run_dir)
    keeper.save(4, run, run)
    keeper.finish()
    (run_dir / "config.yaml").write_text("seed: 0\n")
    return run_dir


def test_it_says_step_tensors_shapes_and_sizes(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run_dir), "--config"]) == 0
    said = capsys.readouterr().out
    for words in (
        "step-00000004",
        "29 in 2 tensors",
        "moments:          exp_avg",
        "matrix",
        "4 x 6",
        "float32",
        "seed: 0",
    ):
        assert words in said, said
    assert main([str(run_dir / "checkpoints" / "step-00000004"), "--verify"]) == 0
    assert "every byte of 2 files is what was written" in capsys.readouterr().out


def test_verifying_names_the_corrupted_file(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_dir / "checkpoints" / "step-00000004"
    (shard,) = (folder / "tensors").glob("*.distcp")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert main([str(folder)]) == 0  # a look does not read the tensors
    assert main([str(folder), "--verify"]) == 2
    assert "__0_0.distcp is corrupted" in capsys.readouterr().err


@pytest.mark.parametrize(("place", "reason"), [("nowhere", "is no folder"), (".", "holds no checkpoint")])
def test_a_place_without_a_checkpoint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, reason: str
) -> None:
    assert main([str(tmp_path / place)]) == 2
    assert reason in capsys.readouterr().err


def test_all_of_it_as_one_file_is_the_same(run_dir: Path, tmp_path: Path) -> None:
    assert main([str(run_dir), "--to", str(tmp_path / "other")]) == 0
    source, found = open_checkpoint(run_dir, hashes=True), open_checkpoint(tmp_path / "other", hashes=True)
    assert (found.manifest.step, found.manifest.engine) == (source.manifest.step, source.manifest.engine)
    assert [(t.name, t.shape) for t in stored_in(found.folder)] == [(t.name, t.shape) for t in stored_in(source.folder)]
    assert all(torch.equal(one, other) for one, other in zip(loaded(found.folder), loaded(source.folder), strict=True))
    assert max(tensor.num_rectangles for tensor in stored_in(source.folder)) == 2
    assert {tensor.num_rectangles for tensor in stored_in(found.folder)} == {1}
    assert (tmp_path / "other" / "config.yaml").exists()
    run = Trained()
    assert keeper_of(tmp_path / "other").resume(run, run) == 4


def test_weights_alone_in_another_precision(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run_dir), "--to", str(tmp_path / "small"), "--weights-only", "--dtype", "bf16"]) == 0
    folder = open_checkpoint(tmp_path / "small", hashes=True).folder
    assert {(tensor.name, tensor.dtype) for tensor in stored_in(folder)} == {
        ("matrix", torch.bfloat16), ("vector", torch.bfloat16),
    }  # fmt: skip
    assert torch.equal(loaded(folder)[0], (WHOLE + 0.3).bfloat16().float())
    assert main([str(tmp_path / "small")]) == 0
    assert "it cannot be resumed" in capsys.readouterr().out
    assert main([str(run_dir), "--to", str(tmp_path / "small")]) == 2
    assert "is there already" in capsys.readouterr().err


def test_options_of_writing_without_a_place_to_write_to_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path)
    assert main([str(tmp_path), "--dtype", "bf16"]) == 2
    assert "add --to RUN" in capsys.readouterr().err
