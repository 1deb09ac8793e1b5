"""What may differ between a run and the one that goes on from it, and what may not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmtrain.checkpoint.changes import Changes
from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.checkpoint.manifest import Manifest
from mmtrain.checkpoint.resume import refuse_other_run
from mmtrain.config.load import ConfigError, dump_config
from mmtrain.config.schema import RunConfig
from tests.unit.checkpoint.made import Trained, here, keeper_of, saved

KNOBS = {"seed": "seed", "set_digest": "data.train"}
STREAM = {"step": 4, "order_hash": "0f", "seed": 0, "set_digest": "aa"}
LAYOUT = {"world_size": 2, "dp": 2, "tp": 1, "pp": 1}


def run_of(**sections: Any) -> Manifest:
    config = RunConfig.model_validate(sections).model_dump(mode="json")
    return here(config=config, stream=dict(STREAM), layout=dict(LAYOUT))


def said(there: Manifest, now: Manifest, *allowed: str) -> str:
    """What is refused; empty where nothing is."""
    try:
        Changes(KNOBS, allowed).refuse(there, now)
    except ConfigError as refused:
        return str(refused)
    return ""


MEANING = {
    "model.hidden_size: 192 -> 96": run_of(model={"hidden_size": 96}),
    "train.global_batch_size: 64 -> 32": run_of(train={"global_batch_size": 32}),
    "train.learning_rate: 0.001 -> 0.002": run_of(train={"learning_rate": 2e-3}),
    "loss.itc: 1.0 -> 0.5": run_of(loss={"itc": 0.5}),
    "data.color_jitter: 0.0 -> 0.1": run_of(data={"color_jitter": 0.1}),
    "data.train: weights and modalities of its sets, [] -> [(None, 'text')]": run_of(
        data={"train": {"shards": "a", "modality": "text"}}
    ),
    "precision: auto -> fp32": run_of(precision="fp32"),
    "seed: 0 -> 1": run_of(seed=1),
    "data.tokenizer: sha256 abababababab... -> cdcdcdcdcdcd...": replace(run_of(), tokenizer_sha256="cd" * 32),
    "data.train: set_digest aa -> bb": replace(run_of(), stream={**STREAM, "set_digest": "bb"}),
    "data-parallel ranks x it, 32 -> 64": replace(run_of(), layout={**LAYOUT, "dp": 4}),
}


@pytest.mark.parametrize("change", MEANING)
def test_a_change_of_meaning_is_refused_and_shown_as_it_was_and_is(change: str) -> None:
    refused = said(run_of(), MEANING[change])
    assert change in refused and "--override-resume" in refused


def test_all_changes_are_shown_at_once_and_each_may_be_allowed() -> None:
    now = run_of(model={"hidden_size": 96}, train={"learning_rate": 2e-3})
    refused = said(run_of(), now)
    assert "model.hidden_size: 192 -> 96" in refused and "train.learning_rate: 0.001 -> 0.002" in refused
    assert "--override-resume model.hidden_size,train.learning_rate" in refused
    assert "model.hidden_size" not in said(run_of(), now, "model")  # a section allows what is in it
    assert said(run_of(), now, "model.hidden_size", "train.learning_rate") == ""


FREE: dict[str, Callable[[], Manifest]] = {
    "layout": lambda: replace(
        run_of(parallel={"tp": 2, "pp": 2, "chunks_per_stage": 2}, zero={"stage": 1}),
        layout={"world_size": 8, "dp": 2, "tp": 2, "pp": 2},
    ),
    "the same block on other ranks": lambda: replace(run_of(train={"micro_batch_size": 8}), layout={**LAYOUT, "dp": 4}),
    "workers": lambda: run_of(data={"num_workers": 3, "cache_bytes": 5, "read_retries": 9}),
    "length": lambda: run_of(train={"num_steps": 2000}),
    "what is watched": lambda: run_of(eval={"num_pairs": 5}, checkpoint={"save_every": 5, "keep_last": 2}),
    "places": lambda: run_of(run_dir="elsewhere", data={"tokenizer": "moved.model", "train": "moved"}),
    "recomputing": lambda: run_of(model={"recompute": "full"}),
}


@pytest.mark.parametrize("change", FREE)
def test_what_means_the_same_run_may_change_freely(change: str) -> None:
    assert said(run_of(), FREE[change]()) == ""


def test_the_block_is_free_where_the_whole_batch_is_contrasted() -> None:
    there, now = run_of(itc={"negatives": "global_batch"}), run_of(itc={"negatives": "global_batch"})
    assert said(there, replace(now, layout={**LAYOUT, "dp": 4})) == ""


def test_a_knob_that_did_not_exist_when_a_run_was_saved_stood_at_its_default() -> None:
    there = run_of()
    del there.config["train"]["beta2"]
    assert said(there, run_of()) == ""
    assert "train.beta2: 0.98 -> 0.9" in said(there, run_of(train={"beta2": 0.9}))


def test_another_order_of_samples_is_taken_up_only_where_it_is_allowed() -> None:
    other = replace(run_of(), stream={**STREAM, "set_digest": "bb"})
    assert said(run_of(), other, "data.train") == ""
    assert Changes(KNOBS).keep_order(run_of(), run_of())
    assert not Changes(KNOBS).keep_order(run_of(), other)


def test_a_run_is_known_by_its_newest_checkpoint_or_by_its_config_before_the_first(tmp_path: Path) -> None:
    changes, config = Changes({"seed": "seed"}), tmp_path / "config.yaml"
    refuse_other_run(tmp_path, config, here(), changes)  # a folder that holds nothing
    other = RunConfig(seed=5)
    config.write_text(dump_config(other))
    with pytest.raises(ConfigError, match="seed: 5 -> 0"):
        refuse_other_run(tmp_path, config, here(), changes)
    saved(tmp_path, moments=True)
    refuse_other_run(tmp_path, config, here(), changes)
    config.unlink()
    (tmp_path / "log.jsonl").touch()
    refuse_other_run(tmp_path, config, here(), changes)
    with pytest.raises(ConfigError, match="holds the log of a run, but not its config.yaml"):
        (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
        refuse_other_run(tmp_path, config, here(), changes)


def test_weights_without_moments_are_not_resumed(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(CheckpointError) as refused:
        refuse_other_run(tmp_path, tmp_path / "config.yaml", here(), Changes({"seed": "seed"}))
    said = str(refused.value)
    assert "no optimizer moments" in said and f"model.init_from={tmp_path}" in said and "\n" not in said


def test_a_file_called_checkpoints_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(ConfigError, match="checkpoints is no folder, so nothing could be saved"):
        refuse_other_run(tmp_path, tmp_path / "config.yaml", here(), Changes({"seed": "seed"}))
    assert (tmp_path / "checkpoints").read_text() == "mine"


def test_a_keeper_refuses_a_checkpoint_of_another_run(tmp_path: Path) -> None:
    saved(tmp_path)
    keeper, run = keeper_of(tmp_path), Trained()
    keeper._here = replace(keeper._here, config=RunConfig(seed=8).model_dump(mode="json"))
    with pytest.raises(ConfigError, match="seed: 0 -> 8"):
        keeper.resume(run, run)
