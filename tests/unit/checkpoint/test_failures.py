"""Checkpoints that cannot be written: one sentence, the older ones whole, and the run stops or goes on as told."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mmtrain.checkpoint import saving
from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.checkpoint.load import find_or_refuse
from tests.unit.checkpoint.made import Trained, keeper_of, loaded, saved, whole

SMALL = "128k"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that holds a few of the checkpoints made here."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def big() -> Trained:
    run = Trained(2.0)
    run.parts.append((whole("big", (256, 256)), torch.ones(256, 256)))
    return run


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_full_disk_is_one_sentence_and_the_older_checkpoint_stays_whole(small_disk: Path, asynchronous: bool) -> None:
    older = saved(small_disk, step=1, value=1.0)
    keeper, run = keeper_of(small_disk, asynchronous=asynchronous), big()
    with pytest.raises(CheckpointError) as refused:
        keeper.save(2, run, run)
        keeper.finish()
    assert "after step 2 could not be written" in str(refused.value) and "No space left on device" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert find_or_refuse(small_disk / "checkpoints").folder == older
    assert torch.equal(loaded(older)[1], torch.full((5,), 1.0))
    assert not list((small_disk / "checkpoints").glob("*.partial"))


def test_a_run_that_is_told_so_goes_on_and_saves_again_when_there_is_room(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper, run = keeper_of(small_disk, on_failure="go_on"), big()
    keeper.save(1, run, run)
    keeper.finish()
    assert any("No space left on device" in said and "goes on" in said for said in caplog.messages)
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    keeper.save(2, run, run)
    keeper.finish()
    assert find_or_refuse(small_disk / "checkpoints").folder.name == "step-00000002"


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("not a folder")  # root may write into every folder
    keeper, run = keeper_of(tmp_path), Trained()
    with pytest.raises(CheckpointError, match="could not be written to .*checkpoints: rank 0: Not a directory"):
        keeper.save(1, run, run)
        keeper.finish()


def test_a_rank_that_fails_takes_all_ranks_out_of_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on two ranks, of which the other one reports a fault."""
    monkeypatch.setattr(saving, "told_by_all", lambda fault: [fault, "rank 1: No space left on device"])
    keeper, run = keeper_of(tmp_path), Trained()
    with pytest.raises(CheckpointError, match="rank 1: No space left"):
        keeper.save(1, run, run)
