"""A run begins with a CLIP's towers and its tokenizer, says what it took, and takes both along into its export."""

from pathlib import Path

import pytest
import torch

from mmtrain.data.folder_tokenizer import FolderTokenizer
from tests.doors.conftest import Prepared
from tests.doors.launched import Ended, launch
from tests.doors.test_export import pictures
from tests.unit.data.test_folder_tokenizer import CLIP_LIKE, made_folder

FITS = [
    "model.hidden_size=48", "model.num_heads=3", "model.vision_hidden_size=32", "model.text_hidden_size=16",
    "model.image_size=32", "model.patch_size=8", "model.vision_layers=2", "model.text_layers=2",
    "model.embedding_size=24",
    "model.vision_entry_norm=true", "model.vision_activation=quick_gelu", "model.text_activation=quick_gelu",
    "model.text_attention=causal", "model.text_pooling=last", "model.max_text_length=24", "model.mlp_ratio=2",
    "train.micro_batch_size=16", "train.num_steps=2", "data.max_unknown_share=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP on disk with a tokenizer of its own."""
    from transformers import CLIPConfig, CLIPModel

    folder = made_folder(tmp_path_factory.mktemp("clip"), CLIP_LIKE)
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8}
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 1}
    text |= {"vocab_size": FolderTokenizer(folder).num_pieces - 1}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)).save_pretrained(folder)
    return folder


def pretrain(prepared: Prepared, name: str, *words: object) -> Ended:
    return launch("preloaded", "pretrain", ["--config", prepared.config, f"run_dir={prepared.folder}/{name}", *words])


@pytest.mark.long
def test_towers_and_tokenizer_go_along_into_run_and_export(prepared: Prepared, clip: Path) -> None:
    from mmtrain.hf import VLBertForImageCaptioning

    ended = pretrain(prepared, "clip", *FITS, f"model.init_from={clip}", f"data.tokenizer={clip}")
    assert ended.code == 0, ended.said
    for line in ("text layers, tokens, final norm: taken", "projections to the shared space, temperature: taken"):
        assert line in ended.said
    run_dir = prepared.folder / "clip"
    ended = launch("preloaded", "export", [run_dir])
    assert ended.code == 0, ended.said
    model = VLBertForImageCaptioning.from_pretrained(run_dir / "export")
    assert isinstance(model.generate(pictures(1)[0], max_length=8), str)
    own = FolderTokenizer(clip)
    assert model.processor(text="a picture of red blue")["input_ids"][0].tolist() == own.encode(
        "a picture of red blue", 24
    )
    assert model.config.mask_token_id == own.mask_id == model.processor.tokenizer.mask_token_id


@pytest.mark.long
def test_towers_that_do_not_fit_are_refused_with_every_knob_at_once(prepared: Prepared, clip: Path) -> None:
    ended = pretrain(prepared, "unfit", f"model.init_from={clip}", "train.micro_batch_size=16")
    assert ended.code == 2
    for knob in ("model.vision_layers=2", "model.text_attention=causal", "model.vision_entry_norm=true"):
        assert f"set {knob}" in ended.said
    assert "data.tokenizer is not that of the text tower" in ended.said
