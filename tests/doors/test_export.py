"""A run becomes a Hugging Face folder, and the folder does what the README says."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.doors.conftest import Prepared
from tests.doors.launched import Ended, launch


@pytest.fixture(scope="module")
def run_dir(exported: Path) -> Path:
    return exported


def export(*words: object) -> Ended:
    return launch("preloaded", "export", words)


def pictures(count: int) -> list[Image.Image]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 40, 50, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(one.numpy()) for one in pixels]


def test_the_folder_holds_weights_config_processor_and_a_card(run_dir: Path) -> None:
    names = {path.name for path in (run_dir / "export").iterdir()}
    assert names >= {
        "model.safetensors", "config.json", "generation_config.json", "processor_config.json", "tokenizer.model",
        "training.yaml", "README.md",
    }  # fmt: skip
    card = (run_dir / "export/README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "| heldout | itm_accuracy |" in card and "3 steps of 16 samples" in card


def test_a_picture_in_gives_a_string_and_tensors_give_ids(run_dir: Path) -> None:
    from mmtrain.hf import VLBertForImageCaptioning

    model = VLBertForImageCaptioning.from_pretrained(run_dir / "export")
    image, *more = pictures(3)
    caption = model.generate(image, max_length=20, num_beams=4)
    assert isinstance(caption, str)
    pixels = model.processor(images=[image, *more])["pixel_values"]
    ids = model.generate(pixels, max_length=20, num_beams=4)
    assert ids.shape[0] == 3 and ids.dtype == torch.int64
    assert model.processor.decode(ids[0], skip_special_tokens=True).strip() == caption
    assert model.generate([image, *more], max_length=20, num_beams=4)[0] == caption
    assert int(ids.max()) < model.config.num_pieces


@pytest.mark.long
def test_a_folder_that_is_there_is_replaced_only_when_asked(run_dir: Path, tmp_path: Path) -> None:
    refused = export(run_dir)
    assert refused.code == 2
    assert f"{run_dir}/export is there already" in refused.said and "--overwrite" in refused.said
    assert export(run_dir, "--out", tmp_path / "half", "--dtype", "bf16").code == 0
    whole, half = (
        path.stat().st_size for path in (run_dir / "export/model.safetensors", tmp_path / "half/model.safetensors")
    )
    assert 1.8 < whole / half < 2.05


def test_a_folder_without_a_checkpoint_is_refused_in_a_sentence(tmp_path: Path) -> None:
    refused = export(tmp_path)
    assert refused.code == 2
    assert refused.said.startswith("mmtrain: ") and "holds no checkpoint" in refused.said


@pytest.mark.long
def test_a_run_begins_with_an_export_and_refuses_one_of_another_shape(run_dir: Path, prepared: Prepared) -> None:
    words = ["--config", prepared.config, f"model.init_from={run_dir}/export", "train.micro_batch_size=16"]
    wrong = launch("preloaded", "pretrain", [*words, f"run_dir={prepared.folder}/wrong", "model.hidden_size=64"])
    assert wrong.code == 2
    assert "model.hidden_size is 64, but 32 in model.init_from" in wrong.said
    again = [
        *words,
        f"run_dir={prepared.folder}/again",
        "train.num_steps=1",
        "train.warmup_steps=0",
        "train.learning_rate=1e-12",
    ]
    ended = launch("preloaded", "pretrain", again)
    assert ended.code == 0, ended.said
    assert export(f"{prepared.folder}/again").code == 0

    from mmtrain.hf.storage import WeightFolder

    first, second = (WeightFolder(folder / "export") for folder in (run_dir, prepared.folder / "again"))
    for name in first:
        torch.testing.assert_close(first.read(name), second.read(name), rtol=0, atol=1e-9, msg=name)
