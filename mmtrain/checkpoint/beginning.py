"""The checkpoint of another run as a place that first weights come from, whatever layout wrote it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.checkpoint.index import TENSORS, read_index
from mmtrain.checkpoint.load import load_tensors, look_at
from mmtrain.config.schema import ModelConfig
from mmtrain.config.shapes import FREE_OF_WEIGHTS
from mmtrain.config.tuning import LoraConfig
from mmtrain.parallel.slices import Slice

CHECKPOINTS = "checkpoints"


class RunSource:
    """The newest whole checkpoint of a run; CheckpointError where there is none."""

    def __init__(self, run_dir: Path) -> None:
        found = look_at(run_dir / CHECKPOINTS)
        if found is None:
            raise CheckpointError(f"model.init_from is {str(run_dir)!r}, which holds no whole checkpoint")
        self.run_dir, self.folder, self.manifest = run_dir, found.folder, found.manifest
        self._table = read_index(self.folder / TENSORS).state_dict_metadata

    @property
    def answers(self) -> list[str]:
        """What its head chooses from; none where it has no such head."""
        task: dict[str, Any] = self.manifest.config.get("task", {})
        return task.get("answers", []) if task.get("answering") == "choose" else []

    def faults(self, model: ModelConfig, tokenizer_sha256: str) -> list[str]:
        """Why this model cannot begin with it, one sentence each, with the knob to turn."""
        theirs: dict[str, Any] = self.manifest.config["model"]
        faults = [
            f"model.{name} is {value}, but {theirs[name]} in model.init_from ({self.run_dir}); "
            f"set model.{name}={theirs[name]}"
            for name, value in model.model_dump(mode="json").items()
            if name not in FREE_OF_WEIGHTS and name in theirs and value != theirs[name]
        ]
        if tokenizer_sha256 != self.manifest.tokenizer_sha256:
            faults.append(
                f"data.tokenizer is not that of model.init_from; set data.tokenizer={self.run_dir / 'tokenizer.model'}"
            )
        return faults

    def lora_faults(self, lora: LoraConfig) -> list[str]:
        """Why a run with these small matrices cannot begin with it: its own are others, and part of the model."""
        theirs = LoraConfig.model_validate(self.manifest.config.get("finetune", {}).get("lora", {}))
        if not theirs.rank or _effect(theirs) == _effect(lora):
            return []
        return [
            f"model.init_from ({self.run_dir}) was trained with finetune.lora.rank={theirs.rank}, "
            f"alpha={theirs.alpha:g}, stacks={','.join(theirs.stacks)}, matrices={','.join(theirs.matrices)}; set "
            f"finetune.lora the same, or begin with its export, where they are merged (mmtrain export {self.run_dir})"
        ]

    def shape(self, name: str) -> tuple[int, ...]:
        """The whole shape of a tensor that it has."""
        return tuple(self._table[name].size)

    def fill_all(self, wanted: Mapping[Slice, torch.Tensor]) -> list[str]:
        """Fill each tensor that the checkpoint has; names of those it has not. Every rank must call it."""
        load_tensors(self.folder, {place: tensor for place, tensor in wanted.items() if place.name in self._table})
        return sorted(place.name for place in wanted if place.name not in self._table)


def _effect(lora: LoraConfig) -> tuple[object, ...]:
    """What of it the weights follow."""
    return lora.rank, lora.alpha, set(lora.stacks), set(lora.matrices)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's, with a place for checkpoints."""
    return (folder / CHECKPOINTS).is_dir()
