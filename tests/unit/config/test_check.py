"""Relations between knobs: each fault is found, named, and answered with a legal neighbour."""

from pathlib import Path

import pytest

from mmtrain.config.check import check, find_faults, load_checked
from mmtrain.config.load import ConfigError, load_config
from mmtrain.config.schema import RunConfig
from mmtrain.config.shapes import num_micro_batches

DATA = ("data.train=t", "data.heldout=h", "data.tokenizer=m")
CONFIGS = Path(__file__).parents[3] / "configs"


def run_of(*overrides: str) -> RunConfig:
    return load_config(None, [*DATA, *overrides])


def test_a_run_without_fault_passes() -> None:
    check(run_of(), world_size=4)


@pytest.mark.parametrize(
    ("overrides", "world_size", "words"),
    [
        (["model.num_heads=5"], 1, ["model.num_heads is 5", "model.hidden_size (192)", "nearest that does is 4"]),
        (["model.vision_hidden_size=100"], 1, ["model.vision_hidden_size is 100", "64", "the nearest is 128"]),
        (["model.text_hidden_size=200"], 1, ["model.text_hidden_size is 200", "the nearest is 192"]),
        (["parallel.tp=2"], 2, ["model.num_heads (3) is not divisible by parallel.tp (2)", "is parallel.tp=1"]),
        (
            ["parallel.tp=2", "model.num_heads=4", "model.text_hidden_size=144"],
            2,
            ["model.text_hidden_size (144) makes 3 heads", "parallel.tp (2)"],
        ),
        (["parallel.tp=3", "model.mlp_ratio=3.99"], 3, ["model.mlp_ratio (3.99)", "766", "parallel.tp (3)"]),
        (["model.patch_size=7"], 1, ["model.patch_size is 7", "model.image_size (64)", "nearest that does is 8"]),
        (["parallel.tp=3"], 4, ["parallel.tp x pp is 3, but 4 ranks were launched", "parallel.tp=1 parallel.pp=1"]),
        (["survival.signals=[SIGKILL]"], 1, ["survival.signals names SIGKILL", "SIGUSR2"]),
        (["train.global_batch_size=40"], 1, ["train.global_batch_size is 40", "16 samples", "the nearest is 32"]),
        (["train.global_batch_size=64"], 8, ["train.global_batch_size is 64", "128 samples", "the nearest is 128"]),
        (["itm.pool_size=5"], 1, ["itm.pool_size is 5", "train.micro_batch_size (16)", "nearest that does is 4"]),
        (["itm.pool_size=1"], 1, ["itm.pool_size is 1; wanted at least 2"]),
        (["loss.mlm=0", "loss.itc=0", "loss.vlp=0"], 1, ["loss.mlm, loss.itc and loss.vlp are all 0"]),
        (["mlm.mask_share=0"], 1, ["mlm.mask_share is 0", "loss.mlm"]),
        (["train.warmup_steps=2000"], 1, ["train.warmup_steps is 2000", "train.num_steps (1000)"]),
        (["train.beta2=1"], 1, ["train.beta2 is 1; wanted less than 1"]),
        (["itc.initial_temperature=0.9"], 1, ["itc.initial_temperature is 0.9", "(0.01)", "(0.5)"]),
        (["itc.min_temperature=0.9"], 1, ["itc.min_temperature is 0.9", "itc.max_temperature (0.5)"]),
        (["model.max_text_length=2"], 1, ["model.max_text_length is 2; wanted at least 3"]),
        (["data.train=[]"], 1, ["data.train is not given"]),
        (["task.name=vqa", "task.answering=rank"], 1, ["task.answering is rank", "task.answers is not given"]),
        (["task.name=vqa", "task.max_new_tokens=46"], 1, ["task.max_new_tokens is 46", "(48)", "from 2 to 45"]),
        (["task.name=vqa", "loss.answer=1"], 1, ["loss.answer asks for a choice", "task.answering=choose"]),
        (["loss.answer=1"], 1, ["loss.answer asks for a choice", "task.answering=choose"]),
        (["task.temperature=1e-40"], 1, ["task.temperature is 1e-40; wanted 0 to search, or at least 0.0001"]),
        (["data.tokenizer=null"], 1, ["data.tokenizer is not given"]),
        (["eval.every=5", "data.heldout=[]"], 1, ["eval.every is 5", "data.heldout is not given"]),
    ],
)
def test_a_fault_between_knobs_is_said_alone_with_its_remedy(
    overrides: list[str], world_size: int, words: list[str]
) -> None:
    (fault,) = find_faults(run_of(*overrides), world_size)
    assert all(word in fault for word in words), fault


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss.vlp=0", "itm.pool_size=5"],
        ["loss.mlm=0", "mlm.mask_share=0"],
        ["eval.every=0", "data.heldout=[]"],
        ["loss.itc=0", "loss.vlp=0"],
        ["model.vision_hidden_size=256", "model.text_hidden_size=64"],
    ],
)
def test_what_the_run_does_not_use_is_no_fault(overrides: list[str]) -> None:
    assert find_faults(run_of(*overrides), 1) == []


def test_check_says_all_faults_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        check(load_config(None, ["parallel.tp=5", "train.warmup_steps=2000"]), world_size=8)
    message = str(caught.value)
    for knob in ("model.num_heads", "parallel.tp x pp", "train.warmup_steps", "data.train", "data.tokenizer"):
        assert knob in message


def test_faults_of_reading_and_of_relations_come_in_one_message() -> None:
    with pytest.raises(ConfigError) as caught:
        load_checked(None, [*DATA, "model.vision_layer=3", "model.num_heads=12", "parallel.tp=5"], world_size=8)
    first, *others = caught.value.faults
    assert first == "model.vision_layer is unknown; did you mean model.vision_layers?"
    assert any("model.num_heads (12) is not divisible by parallel.tp (5)" in fault for fault in others)
    assert any("parallel.tp x pp is 5, but 8 ranks were launched" in fault for fault in others)


@pytest.mark.parametrize("override", ["data.train=$NOT/x", "data.trian=x", "data.train=~no-such-user/x"])
def test_a_knob_that_could_not_be_read_is_not_blamed_for_its_default(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_checked(None, ["data.tokenizer=m", override], world_size=1)
    assert not any("is not given" in fault for fault in caught.value.faults)


@pytest.mark.parametrize(("world_size", "tp", "count"), [(1, 1, 4), (2, 1, 2), (4, 1, 1), (4, 2, 2)])
def test_the_micro_batches_of_all_ranks_make_the_global_batch(world_size: int, tp: int, count: int) -> None:
    config = run_of(f"parallel.tp={tp}", "model.num_heads=4")
    assert num_micro_batches(config, world_size) == count
    assert count * (world_size // tp) * config.train.micro_batch_size == config.train.global_batch_size


@pytest.mark.parametrize(("name", "world_size"), [("tiny", 1), ("tiny", 2), ("base", 1), ("base", 8), ("large", 64)])
def test_a_shipped_config_fits_the_ranks_it_is_meant_for(name: str, world_size: int) -> None:
    load_checked(CONFIGS / "pretrain" / f"{name}.yaml", DATA, world_size)
