"""Illegal layouts through the real programs: refused at once, with the reason and a legal neighbour."""

import sys

import pytest

from tests.doors.launched import Ended, launch, run_program

LIMIT_SECONDS = 60  # an answer and no hang
SHAPE = ("model.num_heads=12", "train.micro_batch_size=1", "train.global_batch_size=720720", "loss.vlp=0")
ILLEGAL = {
    "heads": (24, ["parallel.tp=8"], "model.num_heads (12) is not divisible by parallel.tp (8)", "parallel.tp=6"),
    "inner width": (12, ["parallel.tp=6", "model.mlp_ratio=3.9"], "makes an inner width of 748", "parallel.tp=4"),
    "stages": (72, ["parallel.pp=9"], "more stages than the 8 layers of the model", "parallel.pp=8"),
    "stages by hand": (2, ["parallel.pp=2", "parallel.stage_layers=[1,1]"], "adds up to 2 layers", "=[4,4]"),
    "world": (3, ["parallel.tp=2"], "parallel.tp x pp is 2, but 3 ranks were launched", "parallel.tp=1 parallel.pp=1"),
    "tokens": (2, ["parallel.sequence_parallel=true"], "but parallel.tp is 1", "parallel.tp=2"),
    "text length": (
        4,
        ["parallel.tp=4", "parallel.sequence_parallel=true", "model.max_text_length=50"],
        "model.max_text_length is 50",
        "the nearest is 48",
    ),
    "gather": (1, ["zero.stage=2", "zero.gather=per_step"], "zero.gather is per_step", "zero.gather=auto"),
    "batch": (2, ["train.global_batch_size=5"], "train.global_batch_size is 5", "the nearest is 4"),
}


def is_refused_at_once(ended: Ended, reason: str, neighbour: str) -> None:
    assert ended.code == 2, ended.said
    assert ended.said.count("mmtrain: this run cannot start") == 1 and "Traceback" not in ended.said, ended.said
    (line,) = [line for line in ended.said.splitlines() if reason in line]
    assert neighbour in line
    assert ended.seconds < LIMIT_SECONDS


def plan(world_size: int, *words: object) -> Ended:
    return run_program([sys.executable, "-m", "mmtrain.cli", "plan", "--world", world_size, *words])


@pytest.mark.parametrize(("world_size", "words", "reason", "neighbour"), ILLEGAL.values(), ids=ILLEGAL)
def test_an_illegal_layout_is_refused_at_start_with_a_legal_neighbour(
    world_size: int, words: list[str], reason: str, neighbour: str
) -> None:
    ranks = ["env", f"WORLD_SIZE={world_size}", "RANK=0", sys.executable, "mmtrain/pretrain.py"]
    is_refused_at_once(run_program([*ranks, *SHAPE, *words]), reason, neighbour)


def test_torchrun_ends_with_the_same_sentence() -> None:
    ended = launch("torchrun", "pretrain", ["parallel.pp=2", "parallel.stage_layers=[1,1]"])
    assert ended.code == 1 and ended.said.count("parallel.stage_layers adds up to 2 layers") == 1, ended.said


def test_plan_check_names_the_nearest_legal_layouts() -> None:
    ended = plan(8, "--check", *SHAPE, "parallel.tp=5")
    is_refused_at_once(ended, "model.num_heads (12) is not divisible by parallel.tp (5)", "parallel.tp=4")
    _, _, nearest = ended.said.partition("the nearest legal layouts:\n")
    words, _, _ = nearest.splitlines()[0].strip().partition("  (")
    assert plan(8, "--check", *SHAPE, *words.split()).code == 0


def test_plan_check_knows_the_vocabulary() -> None:
    is_refused_at_once(
        plan(3, "--check", "--pieces", 500, *SHAPE, "parallel.tp=3"), "padded to 512 rows", "parallel.tp=2"
    )
    assert plan(3, "--check", "--pieces", 384, *SHAPE, "parallel.tp=3").code == 0


def test_plan_shows_every_stage_without_torch() -> None:
    words = ["--config", "configs/pretrain/base.yaml", "--world", "64", "parallel.tp=2", "parallel.pp=2"]
    code = (
        f"import sys, mmtrain.plan; code = mmtrain.plan.main({words}); sys.exit(code or 9 * ('torch' in sys.modules))"
    )
    ended = run_program([sys.executable, "-c", code])
    assert ended.code == 0, ended.said
    for said in (
        "dp 16 x tp 2 x pp 2",
        "vision 12",
        "fusion 6",
        "parameters",
        "per_step",
        "per_use",
        "TFLOP",
        "packet",
    ):
        assert said in ended.said
    assert "each is idle 50% of the time" in ended.said
