"""The process that writes saves: it sees what was copied, and a run outlives it."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.checkpoint.load import find_or_refuse
from tests.unit.checkpoint.made import Trained, keeper_of, loaded


class Moving(Trained):
    """An engine that goes on as soon as it may."""

    def hold(self, until: Callable[[], None]) -> None:
        until()
        for _, values in self.parts:
            values.add_(1000.0)


def test_a_save_is_of_the_values_at_its_step_though_the_run_went_on(tmp_path: Path) -> None:
    keeper, run = keeper_of(tmp_path), Moving(3.0)
    keeper.save(1, run, run)
    keeper.finish()
    assert float(run.parts[-1][1][0]) == 1003.0
    assert torch.equal(loaded(find_or_refuse(tmp_path / "checkpoints").folder)[1], torch.full((5,), 3.0))


def test_when_the_process_is_killed_the_save_fails_in_one_sentence_and_the_next_one_stands(tmp_path: Path) -> None:
    keeper, run = keeper_of(tmp_path), Trained(3.0)
    keeper.resume(run, run)
    os.kill(keeper.writer.process, signal.SIGKILL)
    with pytest.raises(CheckpointError, match="rank 0: .*the process that writes was ended from outside"):
        keeper.save(1, run, run)
        keeper.finish()
    keeper.save(2, run, run)
    keeper.finish()
    assert find_or_refuse(tmp_path / "checkpoints").folder.name == "step-00000002"


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or only waits to be asked how it went; it is given a hundredth of a second."""
    signal.sigtimedwait([], 0.01)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


def test_the_process_ends_with_its_run(tmp_path: Path) -> None:
    out, into = os.pipe()
    if not (pid := os.fork()):
        writer = keeper_of(tmp_path).writer
        os.write(into, str(writer.process).encode())
        signal.pause()
    child = int(os.read(out, 32))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert any(has_ended(child) for _ in range(500)), f"the process that writes ({child}) outlives its run by 5 s"


def test_with_its_writer_the_process_is_gone_at_once(tmp_path: Path) -> None:
    keeper = keeper_of(tmp_path)
    child = keeper.writer.process
    del keeper
    assert not Path(f"/proc/{child}").exists()  # what ends it later would still be at it when the interpreter ends
