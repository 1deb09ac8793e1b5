"""Towers of CLIP and SigLIP give those models' own hidden states, in the parallel model and in the twin."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mmtrain.config.schema import ModelConfig, RunConfig
from mmtrain.hf.sources import open_source

if TYPE_CHECKING:
    from mmtrain.engine.build import Place

# Shapes of clip-vit-base-patch16 and siglip-base-patch16-224 are transformers' defaults, but for CLIP's patches.
SHAPES = {
    "clip": {"vision": {"patch_size": 16}, "text": {}},
    "siglip": {"vision": {}, "text": {"bos_token_id": None, "eos_token_id": 1}},
}
KNOBS = {
    "clip": {
        "vision_hidden_size": 768, "text_hidden_size": 512, "text_layers": 12, "max_text_length": 77,
        "vision_entry_norm": True, "vision_activation": "quick_gelu", "text_activation": "quick_gelu",
        "text_attention": "causal", "text_pooling": "last", "embedding_size": 512,
    },
    "siglip": {
        "vision_hidden_size": 768, "text_hidden_size": 768, "text_layers": 12, "max_text_length": 64,
        "vision_class_token": False, "vision_pooling": "attention", "vision_activation": "gelu_tanh",
        "text_activation": "gelu_tanh", "vision_norm_epsilon": 1e-6, "text_norm_epsilon": 1e-6, "embedding_size": 256,
    },
}  # fmt: skip
LENGTHS = (3, 9, 20, 14)
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def model_of(kind: str, **changes: Any) -> ModelConfig:
    """The shape that begins with the source: heads of 64, a small fusion."""
    shared = {"hidden_size": 128, "num_heads": 2, "vision_layers": 12, "fusion_layers": 1, "image_size": 224}
    return ModelConfig(**{**shared, "patch_size": 16, **KNOBS[kind], **changes})


@pytest.fixture(scope="module", params=["clip", "siglip"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Any]]:
    """A checkpoint of random weights on disk, its kind, and the model itself."""
    from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

    kind = request.param
    config_class, model_class = {"clip": (CLIPConfig, CLIPModel), "siglip": (SiglipConfig, SiglipModel)}[kind]
    torch.manual_seed(0)
    shape = SHAPES[kind]
    model = model_class(config_class(vision_config=shape["vision"], text_config=shape["text"])).eval()
    for name, param in model.named_parameters():
        if param.dim() == 1:  # norms and biases of their own, so that none stands for another
            param.data.add_(0.05 * torch.randn_like(param))
        elif "position" in name or "class" in name:
            param.data.normal_(std=0.05)
    folder = tmp_path_factory.mktemp(kind)
    model.save_pretrained(folder)
    yield kind, folder, model


@pytest.fixture(scope="module")
def built(source: tuple[str, Path, Any], place: "Place") -> Any:
    """The parallel model on one rank, begun from the source."""
    from mmtrain.engine.beginnings import begin_from_source
    from mmtrain.model.vlm import VisionLanguageModel
    from mmtrain.model.weights import initialize, named_slices

    kind, folder, theirs = source
    shape = model_of(kind).model_copy(update={"init_from": folder})
    plan = RunConfig(model=shape)
    vocab_size = theirs.config.text_config.vocab_size + 128
    model = VisionLanguageModel(plan, vocab_size)
    slices = named_slices(model, 0, 1)
    initialize(model, slices, seed=0, shape=shape)
    begin_from_source(plan, model, slices, says_so=False)
    return model.eval()


def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 224, 224), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def texts(theirs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of several lengths, ending as the source's do, and what of them is known."""
    vocab_size = theirs.config.text_config.vocab_size
    ids = torch.randint(5, vocab_size - 2, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(2))
    known = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    end = vocab_size - 1  # CLIP finds the end by this id
    ids[torch.arange(len(LENGTHS)), torch.tensor(LENGTHS) - 1] = end
    return ids.masked_fill(~known, 1), known


def layer_outputs(stack: torch.nn.Module, run: Any) -> list[torch.Tensor]:
    """The tokens before the first layer of a megatron stack and after each, batch first."""
    seen: list[torch.Tensor] = []
    first = next(iter(stack.layers.values()))
    hooks = [first.register_forward_pre_hook(lambda _, args: seen.append(args[0]))]
    hooks += [layer.register_forward_hook(lambda *given: seen.append(given[2][0])) for layer in stack.layers.values()]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return [tokens.transpose(0, 1) for tokens in seen]


def normalized(kind: str, images_BCHW: torch.Tensor) -> torch.Tensor:
    """Pixels as the source's processor hands them over."""
    from mmtrain.hf.towers import PIXELS

    mean, deviation = (torch.tensor(value)[:, None, None] for value in PIXELS[kind])
    return (images_BCHW.float() / 255 - mean) / deviation


@torch.no_grad()
def test_positions_for_larger_images_are_those_that_the_source_reads_off_itself(source: tuple[str, Path, Any]) -> None:
    from mmtrain.model.vision import positions_on_grid

    kind, folder, theirs = source
    side, num_first = 18, int(kind == "clip")
    larger = model_of(kind, image_size=side * 16)
    opened = open_source(folder, "vision")
    assert opened.faults(larger, "") == []
    mine = positions_on_grid(opened.positions(), num_first, side, side)
    tokens = torch.zeros(1, num_first + side**2, larger.vision_width)
    wanted = theirs.vision_model.embeddings.interpolate_pos_encoding(tokens, side * 16, side * 16)[0]
    torch.testing.assert_close(mine, wanted)


@torch.no_grad()
def test_images_have_the_source_s_hidden_states(source: tuple[str, Path, Any], built: Any) -> None:
    kind, _, theirs = source
    wanted = theirs.vision_model(normalized(kind, images()), output_hidden_states=True)
    found = layer_outputs(built.vision.stack, lambda: built.vision(images(), built.model.image_length))
    assert len(found) == len(wanted.hidden_states) == 13
    for mine, own in zip(found, wanted.hidden_states, strict=True):
        torch.testing.assert_close(mine, own, **TOLERANCE)
    tokens_SBH = built.vision(images(), built.model.image_length)
    pool = built.contrast.image_pool
    pooled = tokens_SBH[0] if pool is None else pool(tokens_SBH)
    torch.testing.assert_close(pooled, wanted.pooler_output, **TOLERANCE)


@torch.no_grad()
def test_texts_of_several_lengths_have_the_source_s_hidden_states(source: tuple[str, Path, Any], built: Any) -> None:
    kind, _, theirs = source
    ids, known = texts(theirs)
    wanted = theirs.text_model(ids, attention_mask=known.long(), output_hidden_states=True)
    mask = known[:, None, None].expand(-1, 1, ids.shape[1], -1)
    found = layer_outputs(built.text.stack, lambda: built.text(ids, mask))
    assert len(found) == len(wanted.hidden_states) == 13
    for mine, own in zip(found, wanted.hidden_states, strict=True):
        torch.testing.assert_close(mine[known], own[known], **TOLERANCE)
    after_norm = built.text(ids, mask).transpose(0, 1)
    torch.testing.assert_close(after_norm[known], wanted.last_hidden_state[known], **TOLERANCE)


@torch.no_grad()
def test_features_are_those_of_clip(source: tuple[str, Path, Any], built: Any) -> None:
    kind, _, theirs = source
    if kind != "clip":
        pytest.skip("SigLIP reads a text's feature off a padded place, which is not taken")
    ids, known = texts(theirs)
    wanted = theirs(ids, normalized(kind, images()), known.long())
    mask = known[:, None, None].expand(-1, 1, ids.shape[1], -1)
    tokens_TYH = built.text(ids, mask)
    tokens_SBH = built.vision(images(), built.model.image_length)
    last_B = torch.tensor(LENGTHS[:2]) - 1
    image_BE, text_BE, temperature = built.contrast(tokens_SBH, tokens_TYH[:, :2], last_B)
    torch.testing.assert_close(image_BE, wanted.image_embeds, **TOLERANCE)
    torch.testing.assert_close(text_BE, wanted.text_embeds[:2], **TOLERANCE)
    assert float(1 / temperature) == pytest.approx(float(theirs.logit_scale.exp()), rel=1e-5)


def test_what_does_not_fit_is_refused_with_the_knob_to_turn(source: tuple[str, Path, Any]) -> None:
    kind, folder, _ = source
    fits = open_source(folder, "vision").faults(model_of(kind), "")
    assert fits == []
    changes = {"vision_layers": 11, "patch_size": 32, "num_heads": 4, "vision_activation": "gelu"}
    faults = "\n".join(open_source(folder, "vision").faults(model_of(kind, **changes), ""))
    for words in (
        "set model.vision_layers=12",
        "set model.patch_size=16",
        "a head is 32 wide",
        "model.vision_activation",
    ):
        assert words in faults
    assert "data.tokenizer is not that of the text tower" in open_source(folder, "both").faults(model_of(kind), "")[0]


def test_the_table_says_what_was_taken_and_what_was_not(source: tuple[str, Path, Any]) -> None:
    kind, folder, _ = source
    both, alone = ("\n".join(open_source(folder, towers).table()) for towers in ("both", "vision"))
    assert "fusion stack, match head, token head: drawn" in both
    assert "text tower: not taken" in alone and "text layers" not in alone
    assert ("attention pool: taken" in both) == (kind == "siglip")
