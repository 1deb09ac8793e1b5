"""A run small enough to be written by hand: two tensors, an engine and a stream that hold them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from mmtrain.checkpoint.changes import Changes
from mmtrain.checkpoint.keeper import Keeper
from mmtrain.checkpoint.load import load_tensors
from mmtrain.checkpoint.manifest import Manifest
from mmtrain.config.schema import RunConfig
from mmtrain.parallel.slices import Slice

Parts = list[tuple[Slice, torch.Tensor]]
WHOLE = torch.arange(24.0).reshape(4, 6)


def whole(name: str, shape: tuple[int, ...]) -> Slice:
    return Slice.of_part(name, shape, None, 0, 1)


def rectangles(value: float = 0.0) -> Parts:
    """`matrix` in two halves that do not touch in memory, and `vector`."""
    halves = [(Slice.of_part("matrix", (4, 3), 1, part, 2), (WHOLE + value)[:, 3 * part :][:, :3]) for part in (0, 1)]
    return [*halves, (whole("vector", (5,)), torch.full((5,), value))]


class Trained:
    """An engine and a stream, as far as a keeper knows them; every tensor is what `value` says."""

    def __init__(self, value: float = 0.0) -> None:
        self.parts, self.num_updates, self.position = rectangles(value), 0, 0

    def held(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        yield from self.parts

    kept = held

    def hold(self, until: Callable[[], None]) -> None:
        until()

    def progress(self) -> dict[str, int]:
        return {"num_updates": self.num_updates}

    def take_up(self, progress: dict[str, int]) -> None:
        self.num_updates = progress["num_updates"]

    def state(self) -> dict[str, Any]:
        return {"position": self.position, "seed": 3}

    def restore(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


def here(**changes: Any) -> Manifest:
    """A run of the default config, with `changes` of the manifest."""
    said = {
        "step": 0,
        "config": RunConfig().model_dump(mode="json"),
        "stream": {"position": 0, "seed": 3},
        "tokenizer_sha256": "ab" * 32,
        "num_pieces": 60,
    }
    return Manifest(**(said | changes))


def keeper_of(run_dir: Path, **knobs: Any) -> Keeper:
    """A keeper with the `checkpoint` knobs of a config."""
    return Keeper(run_dir, here(), RunConfig(checkpoint=knobs).checkpoint, Changes({"seed": "seed"}))


def saved(run_dir: Path, step: int = 1, value: float = 0.0, *, moments: bool = False, **knobs: Any) -> Path:
    """The checkpoint of a run whose tensors are what `value` says; with `moments` one moment is among them."""
    keeper = keeper_of(run_dir, **knobs)
    trained = Trained(value)
    trained.parts += [(whole("exp_avg/vector", (5,)), torch.full((5,), value))] if moments else []
    trained.num_updates = trained.position = step
    keeper.save(step, trained, trained)
    keeper.finish()
    return run_dir / "checkpoints" / f"step-{step:08d}"


def loaded(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """`matrix` and `vector` of a checkpoint."""
    matrix, vector = torch.full((4, 6), torch.nan), torch.full((5,), torch.nan)
    load_tensors(folder, {whole("matrix", (4, 6)): matrix, whole("vector", (5,)): vector})
    return matrix, vector
