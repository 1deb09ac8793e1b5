"""A fine-tuning run takes shape, tokenizer and data over from what it begins with, also when that is gone."""

import shutil
from pathlib import Path

import pytest

from mmtrain.config.inherited import laid_under
from mmtrain.config.load import dump_config, load_config
from mmtrain.config.schema import RunConfig


def plan_of(source: Path, *words: str) -> RunConfig:
    return load_config(None, [f"model.init_from={source}", *words])


@pytest.mark.parametrize("name", ["config.yaml", "training.yaml"])
def test_shape_and_tokenizer_of_a_run_or_an_export_lie_under_a_task(tmp_path: Path, name: str) -> None:
    source, own = tmp_path / "source", tmp_path / "own"
    for folder in (source, own):
        folder.mkdir()
    theirs = load_config(None, ["model.hidden_size=96", "data.train=t", "data.heldout=h", "train.num_steps=7"])
    (source / name).write_text(dump_config(theirs))
    under = laid_under(plan_of(source, "task.name=vqa"))
    assert under["model"]["hidden_size"] == 96 and "init_from" not in under["model"]
    places = {"train": ["t"], "heldout": ["h"]} if name == "config.yaml" else {}
    assert under["data"] == places | {"tokenizer": str(source / "tokenizer.model")}
    shutil.move(source / name, own / "config.yaml")
    assert laid_under(plan_of(source, "task.name=vqa", f"run_dir={own}"))["model"] == under["model"]


def test_pretraining_and_a_run_without_a_source_inherit_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(RunConfig()))
    assert laid_under(plan_of(tmp_path)) == {}
    assert laid_under(load_config(None, ["task.name=vqa"])) == {}
    assert laid_under(plan_of(tmp_path / "towers of others", "task.name=caption")) == {}
