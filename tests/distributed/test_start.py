"""What starting under ZeRO leaves undone."""

import os
from pathlib import Path

from tests.helpers import run_ranks, tiny_plan, train_steps


def built_by_a_step(folder: str) -> list[str]:
    """What lies in an empty folder of compiled extensions after a step of ZeRO-3."""
    os.environ["TORCH_EXTENSIONS_DIR"] = folder
    train_steps(tiny_plan(zero={"stage": 3}), 1)
    return sorted(path.name for path in Path(folder).rglob("*"))


def test_no_helper_is_compiled_that_a_killed_run_could_leave_locked(tmp_path: Path) -> None:
    assert run_ranks(2, built_by_a_step, str(tmp_path)) == [[], []]
