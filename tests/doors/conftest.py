"""A small synthetic set with its tokenizer, and the config of a model that a second trains; made once."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doors.launched import launch, run_program

CONFIG = """
precision: fp32
train: {num_steps: 4, global_batch_size: 16, micro_batch_size: 8, learning_rate: 1e-3, warmup_steps: 2}
model:
  hidden_size: 32
  num_heads: 4
  vision_layers: 1
  text_layers: 1
  fusion_layers: 1
  image_size: 32
  embedding_size: 16
itm: {pool_size: 4}
eval: {every: 3, num_pairs: 49, num_pictures: 4}
"""


@dataclass(frozen=True)
class Prepared:
    """Where everything lies that a run needs."""

    folder: Path
    config: Path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """300 scenes to train on and 64 held out."""
    folder = tmp_path_factory.mktemp("doors")
    mmdata = [sys.executable, "-m", "data_tools"]
    sizes = ["--num-train", 300, "--num-heldout", 64, "--image-size", 32, "--seed", 3]
    for words in (
        ["synth", folder / "set", *sizes],
        ["tokenizer", folder / "set/train", "--out", folder / "set/tokenizer.model", "--vocab-size", 512],
    ):
        done = run_program([*mmdata, *words])
        assert done.code == 0, done.said
    places = {name: f"{folder}/set/{file}" for name, file in (("train", "train"), ("heldout", "heldout"))}
    data = {**places, "tokenizer": f"{folder}/set/tokenizer.model"}
    lines = "".join(f"  {name}: {place}\n" for name, place in data.items())
    (folder / "run.yaml").write_text(f"{CONFIG}data:\n{lines}")
    return Prepared(folder, folder / "run.yaml")


@pytest.fixture(scope="session")
def exported(prepared: Prepared) -> Path:
    """A run of a few steps, with its export beside its checkpoints."""
    folder = prepared.folder / "exported"
    steps = ["train.num_steps=3", "train.micro_batch_size=16"]
    for door, words in (
        ("pretrain", ["--config", prepared.config, f"run_dir={folder}", *steps]),
        ("export", [folder]),
    ):
        ended = launch("preloaded", door, words)
        assert ended.code == 0, ended.said
    assert f"{folder}/export: " in ended.said and "after step 3" in ended.said
    return folder
