"""Keeps a run: one checkpoint after another in its folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from mmtrain.checkpoint.manifest import Manifest
from mmtrain.checkpoint.save import save_checkpoint
from mmtrain.parallel.slices import Slice


class Kept(Protocol):
    """What can be kept of an engine."""

    def weights(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        """The rectangles that this rank is to write."""
        ...


class Located(Protocol):
    """What can be kept of a stream."""

    def state(self) -> dict[str, Any]:
        """Where the data stands."""
        ...


class Keeper:
    """Saves to RUN_DIR/checkpoints; `config` are the run's plain values, `is_first` is true on one rank."""

    def __init__(
        self, run_dir: Path, config: dict[str, Any], *, tokenizer_sha256: str, num_pieces: int, is_first: bool
    ) -> None:
        self.checkpoints = run_dir / "checkpoints"
        self._config, self._tokenizer, self._num_pieces = config, tokenizer_sha256, num_pieces
        self._is_first = is_first

    def save(self, step: int, engine: Kept, stream: Located) -> None:
        """Write the weights after `step` optimizer steps; every rank must call it."""
        manifest = Manifest(step, self._config, stream.state(), self._tokenizer, self._num_pieces)
        save_checkpoint(self.checkpoints, manifest, engine.weights(), is_first=self._is_first)
