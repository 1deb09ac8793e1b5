"""`mmtrain preflight`: nodes as processes that meet on this machine; which of them is named."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doors.conftest import Prepared
from tests.doors.launched import ROOT, environment, run_program
from tests.helpers import free_port

PREFLIGHT = [sys.executable, "-m", "mmtrain.preflight"]


def fly(nodes: list[str], come: list[str], *, patience: int, roots: dict[str, Path] | None = None) -> tuple[list, str]:
    """Exit codes of the nodes that come, and what the first of them says."""
    words = ["--nodes", ",".join(nodes), "--at", f"127.0.0.1:{free_port()}", "--ranks", "1", "--patience", patience]
    programs = []
    for node in come:
        root = (roots or {}).get(node, ROOT)
        command = [str(word) for word in (*PREFLIGHT, "node", "--node", node, *words)]
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        programs.append(subprocess.Popen(command, cwd=root, env=environment() | {"PYTHONPATH": str(root)}, **pipe))
    try:
        said = [program.communicate(timeout=120)[0] for program in programs]
    finally:
        for program in programs:
            program.kill()
    return [program.returncode for program in programs], said[0]


def test_two_nodes_that_add_up_are_fit() -> None:
    codes, said = fly(["a", "b"], ["a", "b"], patience=60)
    assert codes == [0, 0] and "preflight: 2 nodes are fit, and an all-reduce over 2 ranks is right" in said, said


def test_a_node_that_does_not_come_is_named_before_any_rank_starts() -> None:
    codes, said = fly(["a", "b", "c"], ["a", "c"], patience=3)
    assert codes == [2, 2] and said.startswith("bad node b: it did not reach 127.0.0.1:"), said
    assert said.count("\n") == 1


def test_a_node_with_another_checkout_is_named(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "mmtrain", tmp_path / "mmtrain")
    (tmp_path / "mmtrain" / "loop.py").write_text("# older\n")
    codes, said = fly(["a", "b", "c"], ["a", "b", "c"], patience=20, roots={"b": tmp_path})
    assert codes == [2, 2, 2] and said.startswith("bad node b: the code of mmtrain is "), said


def test_a_run_that_is_fit_says_its_folder(prepared: Prepared) -> None:
    ended = run_program([*PREFLIGHT, "run", "--config", prepared.config, "--world", 4, "parallel.tp=2", "run_dir=r"])
    assert (ended.code, ended.said) == (0, f"{ROOT}/r\n")


@pytest.mark.parametrize("word", ["model.num_headz=4", "parallel.tp=3"])
def test_a_run_that_is_not_as_it_must_be_is_refused_in_a_second_or_two(word: str, prepared: Prepared) -> None:
    ended = run_program([*PREFLIGHT, "run", "--config", prepared.config, "--world", 4, word])
    assert ended.code == 2 and ended.said.startswith("mmtrain: this run cannot start:"), ended.said
