"""A model learns which caption belongs to which image, and learns nothing where they do not belong together."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.doors.launched import launch, run_program

NUM_HELDOUT = 256
WAYS = ("image_to_text", "text_to_image")
CHANCE_AT_10 = 10 / NUM_HELDOUT
CONFIG = """
precision: fp32
train: {num_steps: 600, global_batch_size: 32, micro_batch_size: 32, learning_rate: 3e-3, warmup_steps: 30}
model:
  hidden_size: 96
  num_heads: 3
  vision_layers: 2
  text_layers: 1
  fusion_layers: 1
  image_size: 32
  embedding_size: 64
loss: {mlm: 0, vlp: 0}
eval: {num_pairs: 256, num_pictures: 0}
"""


@pytest.fixture(scope="module")
def set_of_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6,000 scenes of two objects, and 256 held-out ones that are none of them."""
    folder = tmp_path_factory.mktemp("learning")
    sizes = ["--num-train", 6000, "--num-heldout", NUM_HELDOUT, "--image-size", 32, "--seed", 3]
    for words in (["synth", folder, *sizes], ["tokenizer", folder / "train", "--out", folder / "tokenizer.model"]):
        done = run_program([sys.executable, "-m", "data_tools", *words])
        assert done.code == 0, done.said
    return folder


def scores_after_training(folder: Path, *, shuffle_pairs: bool) -> dict[str, float]:
    """Held-out scores of the same short training, with images and captions as they are or broken apart."""
    run_dir = folder / f"run-{shuffle_pairs}"
    config = folder / f"{run_dir.name}.yaml"
    places = {name: str(folder / name) for name in ("train", "heldout")}
    data = {**places, "tokenizer": str(folder / "tokenizer.model"), "num_workers": 0, "shuffle_pairs": shuffle_pairs}
    config.write_text(f"{CONFIG}data: {json.dumps(data)}\n")
    ended = launch("python", "pretrain", ["--config", config, f"run_dir={run_dir}"], limit_seconds=280)
    assert ended.code == 0, ended.said
    rows = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return next(row for row in rows if row.get("eval") == "heldout")


def test_held_out_pairs_are_found_only_where_images_and_captions_belong_together(set_of_scenes: Path) -> None:
    with ThreadPoolExecutor(2) as both:
        whole, broken = both.map(lambda apart: scores_after_training(set_of_scenes, shuffle_pairs=apart), (False, True))
    assert whole["num_pairs"] == broken["num_pairs"] == NUM_HELDOUT
    for way in WAYS:
        assert whole[f"{way}_recall_at_10"] > 5 * CHANCE_AT_10, whole
        assert whole[f"{way}_recall_at_5"] > 5 * 5 / NUM_HELDOUT, whole
        # Four standard deviations of guessing above chance.
        assert broken[f"{way}_recall_at_10"] < CHANCE_AT_10 + 4 * (CHANCE_AT_10 / NUM_HELDOUT) ** 0.5, broken
        assert broken[f"{way}_recall_at_1"] <= 5 / NUM_HELDOUT, broken
