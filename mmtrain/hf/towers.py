"""Towers of Hugging Face CLIP and SigLIP checkpoints, as first weights of a run's.

Both are pre-norm transformers as ours. What differs is a knob of `model` (activation, epsilon, [CLS], norm before the
first layer, pooling, attention of the text), or is folded into a weight (the normalization of pixels). What is left is
not taken, and the table says why.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from mmtrain.config.schema import ModelConfig
from mmtrain.config.shapes import inner_width, stack_activations, stack_norm_epsilons
from mmtrain.config.tuning import POSITIONS
from mmtrain.hf.storage import WeightFolder, is_file_of
from mmtrain.io.documents import read_json_object

ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
PIXELS = {  # mean and deviation of each channel where preprocessor_config.json does not say them
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
PIXEL_FILES = ("preprocessor_config.json", "processor_config.json")
LAYER = re.compile(r"(vision|text)\.stack\.layers\.(\d+)\.(.+)\.(weight|bias)")
IN_A_LAYER = {
    "input_layernorm": "layer_norm1",
    "self_attention.linear_proj": "self_attn.out_proj",
    "pre_mlp_layernorm": "layer_norm2",
    "mlp.linear_fc1": "mlp.fc1",
    "mlp.linear_fc2": "mlp.fc2",
}
SAME = {  # one tensor of theirs is one of ours
    "vision.embedding.cls": "vision_model.embeddings.class_embedding",
    POSITIONS: "vision_model.embeddings.position_embedding.weight",
    "vision.entry_norm.weight": "vision_model.pre_layrnorm.weight",
    "vision.entry_norm.bias": "vision_model.pre_layrnorm.bias",
    "vision.final_norm.weight": "vision_model.post_layernorm.weight",
    "vision.final_norm.bias": "vision_model.post_layernorm.bias",
    "text.embedding.tokens.weight": "text_model.embeddings.token_embedding.weight",
    "text.embedding.positions": "text_model.embeddings.position_embedding.weight",
    "text.final_norm.weight": "text_model.final_layer_norm.weight",
    "text.final_norm.bias": "text_model.final_layer_norm.bias",
}
POOL = {
    "project": "attention.out_proj",
    "norm": "layernorm",
    "widen": "mlp.fc1",
    "narrow": "mlp.fc2",
}
Recipe = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Knob:
    """What a knob of `model` must be for the towers to be the source's."""

    name: str
    own: Any
    theirs: Any


class TowerSource:
    """The towers in a folder; `towers` are both, or the one that is wanted."""

    answers = ()

    def __init__(self, folder: Path, kind: str, towers: str) -> None:
        self.folder, self.kind = folder, kind
        self.towers = ("vision", "text") if towers == "both" else (towers,)
        self.config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        self._weights = WeightFolder(folder)
        self._made: set[str] = set()  # names that were asked for and given

    def faults(self, model: ModelConfig, tokenizer_sha256: str) -> list[str]:
        found = [*self._shape_faults(model)]
        tokenizer = self.folder / "tokenizer.json"
        if "text" in self.towers and not is_file_of(tokenizer, tokenizer_sha256):
            found.append(
                f"data.tokenizer is not that of the text tower in model.init_from; set data.tokenizer={self.folder}, "
                "or take the vision tower alone: model.init_towers=vision"
            )
        return found

    def _shape_faults(self, model: ModelConfig) -> list[str]:
        knobs = [knob for tower in self.towers for knob in getattr(self, f"_{tower}_knobs")(model)]
        faults = [
            f"model.{knob.name} is {knob.own}, but {knob.theirs} in model.init_from ({self.kind}); "
            f"set model.{knob.name}={_as_word(knob.theirs)}"
            for knob in knobs
            if knob.own != knob.theirs
        ]
        if "text" in self.towers and model.max_text_length > self.config.text_config.max_position_embeddings:
            longest = self.config.text_config.max_position_embeddings
            faults.append(f"model.max_text_length is {model.max_text_length}; model.init_from has {longest} positions")
        sizes = {tower: self._head_size(tower) for tower in self.towers}
        if unfit := {tower: size for tower, size in sizes.items() if size != model.head_size}:
            said = ", ".join(f"{tower} {size}" for tower, size in unfit.items())
            faults.append(
                f"a head is {model.head_size} wide (model.hidden_size / model.num_heads), in model.init_from {said}; "
                "heads of a model have one size: choose hidden_size and num_heads by it, or take one tower alone"
            )
        return faults

    def _head_size(self, tower: str) -> int:
        theirs = getattr(self.config, f"{tower}_config")
        return theirs.hidden_size // theirs.num_attention_heads

    def _knobs_of_both(self, model: ModelConfig, tower: str, width: int) -> list[Knob]:
        theirs = getattr(self.config, f"{tower}_config")
        activation = ACTIVATIONS.get(theirs.hidden_act, theirs.hidden_act)
        ratio_fits = inner_width(theirs.hidden_size, model.mlp_ratio) == theirs.intermediate_size
        ratio = model.mlp_ratio if ratio_fits else theirs.intermediate_size / theirs.hidden_size
        return [
            Knob(f"{tower}_hidden_size", width, theirs.hidden_size),
            Knob(f"{tower}_layers", getattr(model, f"{tower}_layers"), theirs.num_hidden_layers),
            Knob("mlp_ratio", model.mlp_ratio, ratio),
            Knob(f"{tower}_activation", stack_activations(model)[tower], activation),
            Knob(f"{tower}_norm_epsilon", stack_norm_epsilons(model)[tower], theirs.layer_norm_eps),
        ]

    def _vision_knobs(self, model: ModelConfig) -> list[Knob]:
        theirs, is_clip = self.config.vision_config, self.kind == "clip"
        return [
            *self._knobs_of_both(model, "vision", model.vision_width),
            Knob("patch_size", model.patch_size, theirs.patch_size),
            Knob("vision_class_token", model.vision_class_token, is_clip),
            Knob("vision_entry_norm", model.vision_entry_norm, is_clip),
            Knob("vision_pooling", model.vision_pooling, "first" if is_clip else "attention"),
        ]

    def _text_knobs(self, model: ModelConfig) -> list[Knob]:
        own = [Knob("text_attention", model.text_attention, "causal" if self.kind == "clip" else "by_row")]
        if self.kind == "clip":
            own.append(Knob("text_pooling", model.text_pooling, "last"))
        return [*self._knobs_of_both(model, "text", model.text_width), *own]

    def __contains__(self, name: str) -> bool:
        return self._recipe(name) is not None

    def fill(self, param: torch.Tensor, name: str, index: Sequence[slice]) -> None:
        """Fill as much of the rectangle as the source has: of a vocabulary or of positions that may be fewer rows."""
        whole = self._recipe(name)()
        if name.startswith("contrast.") and whole.shape[:1] != param.shape[:1]:
            return  # the table says so
        part = whole[tuple(index)]
        param[: len(part)].copy_(part)
        self._made.add(name)

    def positions(self) -> torch.Tensor:
        return self._weights.read(SAME[POSITIONS])

    def _recipe(self, name: str) -> Recipe | None:
        """How a weight is made of the source's; None where it has none."""
        if layer := LAYER.fullmatch(name):
            return self._layer_recipe(layer) if layer[1] in self.towers else None
        if name.split(".")[0] in ("vision", "text") and name.split(".")[0] not in self.towers:
            return None
        if name in SAME:
            return self._same(SAME[name])
        if name.startswith("vision.embedding.patches."):
            return lambda: self._patches()[name.rpartition(".")[2] == "bias"]
        if name.startswith("contrast."):
            return self._contrast_recipe(name)
        return None

    def _same(self, theirs: str) -> Recipe | None:
        return (lambda: self._weights.read(theirs)) if theirs in self._weights else None

    def _layer_recipe(self, layer: re.Match[str]) -> Recipe | None:
        tower, number, part, kind = layer.groups()
        begins = f"{tower}_model.encoder.layers.{number}."
        if part != "self_attention.linear_qkv":
            return self._same(f"{begins}{IN_A_LAYER[part]}.{kind}")
        size = self._head_size(tower)

        def interleaved() -> torch.Tensor:
            parts = [self._weights.read(f"{begins}self_attn.{which}_proj.{kind}") for which in "qkv"]
            # Head after head, of each its query, key and value.
            return torch.stack([one.unflatten(0, (-1, size)) for one in parts], dim=1).flatten(0, 2)

        return interleaved

    def _patches(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the patch embedding for pixels in [-1, 1]: the source's normalization is folded in.

        With p = 2x - 1 for x in [0, 1], (x - mean) / deviation is p 0.5 / deviation + (0.5 - mean) / deviation.
        """
        theirs = self._weights.read("vision_model.embeddings.patch_embedding.weight").double()
        mean, deviation = (value[:, None, None] for value in self.pixel_scale())
        weight = (theirs * (0.5 / deviation)).flatten(1)
        bias = (theirs * ((0.5 - mean) / deviation)).sum(dim=(1, 2, 3))
        if "vision_model.embeddings.patch_embedding.bias" in self._weights:
            bias = bias + self._weights.read("vision_model.embeddings.patch_embedding.bias")
        return weight.float(), bias.float()

    def pixel_scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of the three channels; ValueError where its files have none that could be."""
        mean, deviation = (torch.tensor(value, dtype=torch.float64) for value in self._pixels())
        if mean.shape != (3,) or deviation.shape != (3,) or not (deviation > 0).all() or not mean.isfinite().all():
            raise ValueError(f"image_mean is {mean.tolist()} and image_std {deviation.tolist()}; wanted three of each")
        return mean, deviation

    def _pixels(self) -> tuple[Sequence[float], Sequence[float]]:
        for file, inner in zip(PIXEL_FILES, (None, "image_processor"), strict=True):
            if (self.folder / file).exists():
                said = read_json_object(self.folder / file)
                said = said.get(inner, {}) if inner else said
                if isinstance(said, dict) and "image_mean" in said and "image_std" in said:
                    return said["image_mean"], said["image_std"]
        return PIXELS[self.kind]

    def _contrast_recipe(self, name: str) -> Recipe | None:
        if name.startswith("contrast.image_pool.") and self.kind == "siglip" and "vision" in self.towers:
            return self._pool_recipe(name.removeprefix("contrast.image_pool."))
        if self.kind != "clip":
            return None
        needs = {"contrast.image.weight": "visual_projection.weight", "contrast.text.weight": "text_projection.weight"}
        if name in needs:
            return self._same(needs[name]) if name.split(".")[1].replace("image", "vision") in self.towers else None
        if name == "contrast.log_temperature" and len(self.towers) == 2:
            return lambda: -self._weights.read("logit_scale").reshape(1)
        return None

    def _pool_recipe(self, name: str) -> Recipe | None:
        head = "vision_model.head."
        if name == "probe":
            return lambda: self._weights.read(f"{head}probe").flatten()
        part, _, kind = name.partition(".")
        if part in POOL:
            return self._same(f"{head}{POOL[part]}.{kind}")
        width = self.config.vision_config.hidden_size
        rows = slice(0, width) if part == "query" else slice(width, None)
        return lambda: self._weights.read(f"{head}attention.in_proj_{kind}")[rows]

    def table(self) -> list[str]:
        """What was taken, what was not, and why."""
        lines = [f"first weights from {self.folder} ({self.kind}):"]
        lines += [f"  {line}" for tower in self.towers for line in TAKEN[self.kind, tower]]
        lines += [f"  {tower} tower: not taken, model.init_towers asks for the other" for tower in self._left_out()]
        made = [name for name in ("contrast.image.weight", "contrast.text.weight") if name in self._made]
        if self.kind == "clip":
            verdict = "taken" if made else "not taken: model.embedding_size is another, or this stage has no head"
            lines.append(f"  projections to the shared space, temperature: {verdict}")
        return [*lines, "  fusion stack, match head, token head: drawn, the source has none"]

    def _left_out(self) -> list[str]:
        return [tower for tower in ("vision", "text") if tower not in self.towers]


TAKEN = {
    ("clip", "vision"): (
        "vision layers, [CLS], positions, norms before and behind: taken",
        "patch embedding: taken, its normalization of pixels folded in",
    ),
    ("clip", "text"): (
        "text layers, tokens, final norm: taken; the row of [MASK] is drawn, the source has none",
        "text positions: taken, the first model.max_text_length",
    ),
    ("siglip", "vision"): (
        "vision layers, positions, final norm, patch embedding: taken",
        "attention pool: taken",
    ),
    ("siglip", "text"): (
        "text layers, tokens, final norm: taken; the rows of [CLS] and [MASK] are drawn, the source has none",
        "text positions: taken, the first model.max_text_length",
        "text head: not taken, it reads the last of 64 padded places, which here is no token",
        "scale and bias of the sigmoid loss: not taken, the loss here is InfoNCE with a temperature",
    ),
}


def _as_word(value: object) -> str:
    """A value as it is written on the command line."""
    return str(value).lower() if isinstance(value, bool) else f"{value}"
