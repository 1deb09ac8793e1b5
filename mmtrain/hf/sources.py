"""Folders that a run's first weights can come from, told apart by their config.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from mmtrain.config.schema import ModelConfig
from mmtrain.config.shapes import FREE_OF_WEIGHTS
from mmtrain.config.tuning import POSITIONS
from mmtrain.hf.configuration import COPIED, VLBertConfig
from mmtrain.hf.export_folder import (
    CONFIG,
    ExportError,
    check_weights,
    parsed,
    read_config,
    read_json,
    tensors_in,
    tokenizer_file,
)
from mmtrain.hf.names import in_twin
from mmtrain.hf.storage import WeightFolder, is_file_of
from mmtrain.hf.tokenization import TOKENIZER_FILE
from mmtrain.hf.towers import PIXEL_FILES, TowerSource

TOWER_KINDS = ("clip", "siglip")


class Source(Protocol):
    """Weights to begin with, by the names that a run has for them."""

    answers: Sequence[str]  # what its head chooses from; none where it has no such head

    def faults(self, model: ModelConfig, tokenizer_sha256: str) -> list[str]:
        """Why this model cannot begin with them, one sentence each, with the knob to turn."""
        ...

    def __contains__(self, name: str) -> bool:
        """Whether it has this weight."""
        ...

    def fill(self, param: torch.Tensor, name: str, index: Sequence[slice]) -> None:
        """Put the rectangle `index` of the weight into `param`."""
        ...

    def positions(self) -> torch.Tensor:
        """The learned positions of an image's tokens, of the source's own grid of patches."""
        ...

    def table(self) -> list[str]:
        """What was taken, what was not, and why; one line each."""
        ...


def open_source(folder: Path, towers: str) -> Source:
    """The source in `folder`; ExportError where there is none that is known, or a file of it cannot be used."""
    if not folder.is_dir():
        raise ExportError(f"model.init_from is {str(folder)!r}, which is no folder")
    kind = read_json(folder / CONFIG).get("model_type")
    if kind == VLBertConfig.model_type:
        return ExportSource(folder)
    if kind in TOWER_KINDS:
        return _open_towers(folder, kind, towers)
    raise ExportError(
        f"model.init_from is {str(folder)!r}, a model of type {kind!r}; wanted an export ({VLBertConfig.model_type}), "
        "a clip or a siglip"
    )


def _open_towers(folder: Path, kind: str, towers: str) -> TowerSource:
    tensors_in(folder)
    for file in PIXEL_FILES:
        if (folder / file).exists():
            read_json(folder / file)
    source = parsed(folder / CONFIG, lambda: TowerSource(folder, kind, towers))
    parsed(folder / PIXEL_FILES[0], source.pixel_scale)
    return source


class ExportSource:
    """The export of another run: every weight, of exactly this shape and tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, read_config(folder)
        check_weights(folder, self.config)
        self._weights, self.answers = WeightFolder(folder), self.config.answers or ()

    def faults(self, model: ModelConfig, tokenizer_sha256: str) -> list[str]:
        follow = [name for name in COPIED if name not in FREE_OF_WEIGHTS]
        shape = {name: (getattr(model, name), getattr(self.config.plan, name)) for name in follow}
        faults = [
            f"model.{name} is {own}, but {theirs} in model.init_from ({self.folder}); set model.{name}={theirs}"
            for name, (own, theirs) in shape.items()
            if own != theirs
        ]
        file = tokenizer_file(self.folder)
        tokenizer = file if file.name == TOKENIZER_FILE else self.folder
        if not is_file_of(file, tokenizer_sha256):
            faults.append(f"data.tokenizer is not that of model.init_from; set data.tokenizer={tokenizer}")
        return faults

    def __contains__(self, name: str) -> bool:
        return in_twin(name) in self._weights

    def fill(self, param: torch.Tensor, name: str, index: Sequence[slice]) -> None:
        param.copy_(self._weights.read(in_twin(name), index))

    def positions(self) -> torch.Tensor:
        return self._weights.read(in_twin(POSITIONS))

    def table(self) -> list[str]:
        return [f"first weights: all from {self.folder}"]
