"""Illegal layouts: each is found alone, with its reason, and the neighbour that is named is legal."""

import pytest

from mmtrain.config.layout import idle_share, layout_faults, layout_remarks, legal_tps
from mmtrain.config.load import load_config
from mmtrain.config.schema import ModelConfig, RunConfig

ANY_BATCH = 720_720  # every number of data-parallel ranks here divides it
TWELVE_HEADS = ("model.num_heads=12", "train.micro_batch_size=1", f"train.global_batch_size={ANY_BATCH}")


def run_of(*overrides: str) -> RunConfig:
    return load_config(None, [*TWELVE_HEADS, *overrides])


ILLEGAL = [
    (["parallel.tp=8"], 24, ["model.num_heads (12) is not divisible by parallel.tp (8)"], "parallel.tp=6"),
    (
        ["parallel.tp=4", "model.vision_hidden_size=96"],
        12,
        ["model.vision_hidden_size (96) makes 6 heads", "parallel.tp (4)"],
        "parallel.tp=3",
    ),
    (["parallel.tp=6", "model.mlp_ratio=3.9"], 12, ["an inner width of 748", "parallel.tp (6)"], "parallel.tp=4"),
    (["parallel.tp=3"], 6, ["the vocabulary (500 pieces, padded to 512 rows)", "parallel.tp (3)"], "parallel.tp=2"),
    (["parallel.pp=9"], 72, ["parallel.pp is 9, more stages than the 8 layers", "vision 4"], "parallel.pp=8"),
    (
        ["parallel.pp=2", "parallel.stage_layers=[3, 3, 2]"],
        2,
        ["parallel.stage_layers names 3 stages, but parallel.pp is 2"],
        "parallel.stage_layers=[4,4]",
    ),
    (
        ["parallel.pp=3", "parallel.stage_layers=[3, 3, 3]"],
        3,
        ["parallel.stage_layers adds up to 9 layers, but the model has 8"],
        "parallel.stage_layers=[3,3,2]",
    ),
    (["parallel.tp=2"], 3, ["parallel.tp x pp is 2, but 3 ranks were launched"], "parallel.tp=1 parallel.pp=1"),
    (["parallel.tp=2", "parallel.pp=2"], 6, ["parallel.tp x pp is 4, but 6 ranks were"], "parallel.tp=1 parallel.pp=2"),
    (["parallel.sequence_parallel=true"], 2, ["parallel.tp is 1", "set it to false"], "parallel.tp=2"),
    (
        ["parallel.sequence_parallel=true", "parallel.tp=4", "model.max_text_length=50"],
        4,
        ["model.max_text_length is 50", "parallel.tp=4"],
        "model.max_text_length=48",
    ),
    (
        ["zero.stage=2", "zero.gather=per_step"],
        1,
        ["zero.gather is per_step, but with zero.stage=2"],
        "zero.gather=auto",
    ),
    (
        ["zero.grad_accumulation=bf16", "precision=fp32"],
        1,
        ["zero.grad_accumulation is bf16, but with precision=fp32"],
        "precision=bf16",
    ),
    (
        ["train.global_batch_size=50", "train.micro_batch_size=16"],
        2,
        ["train.global_batch_size is 50", "the 32 samples"],
        "train.global_batch_size=64",
    ),
]


@pytest.mark.parametrize(("overrides", "world_size", "words", "remedy"), ILLEGAL)
def test_an_illegal_layout_is_said_alone_and_its_neighbour_is_legal(
    overrides: list[str], world_size: int, words: list[str], remedy: str
) -> None:
    num_pieces = 500 if any("500 pieces" in word for word in words) else None
    (fault,) = layout_faults(run_of(*overrides), world_size, num_pieces)
    assert all(word in fault for word in words), fault
    assert remedy in fault or fault.endswith(f"the nearest is {remedy.split('=')[1]}"), fault
    assert layout_faults(run_of(*overrides, *remedy.split()), world_size, num_pieces) == []


def test_tensor_parallelism_that_divides_everything_is_legal() -> None:
    assert legal_tps(ModelConfig(hidden_size=768, num_heads=12)) == [1, 2, 3, 4, 6, 12]
    assert legal_tps(ModelConfig(hidden_size=768, num_heads=12), num_pieces=32_000) == [1, 2, 4]


@pytest.mark.parametrize(("num_micro_batches", "is_said"), [(1, True), (3, True), (4, False)])
def test_fewer_micro_batches_than_stages_run_but_it_is_said_that_they_idle(
    num_micro_batches: int, is_said: bool
) -> None:
    config = run_of("parallel.pp=4", f"train.global_batch_size={num_micro_batches}")
    assert layout_faults(config, 4) == []
    remarks = layout_remarks(config, 4)
    assert bool(remarks) == is_said
    assert not is_said or f"idle {idle_share(num_micro_batches, 4):.0%}" in remarks[0]


def test_one_stage_never_idles() -> None:
    assert idle_share(1, 1) == 0
    assert layout_remarks(run_of("train.global_batch_size=1"), 1) == []
