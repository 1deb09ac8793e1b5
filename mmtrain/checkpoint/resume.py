"""What a run is, as far as going on with it needs to know, and whether a run folder holds another one."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from mmtrain.checkpoint.changes import Changes
from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.checkpoint.index import TENSORS, read_index
from mmtrain.checkpoint.load import look_at
from mmtrain.checkpoint.manifest import Manifest, versions_here
from mmtrain.config.load import ConfigError, read_config
from mmtrain.config.places import redacted
from mmtrain.config.schema import RunConfig
from mmtrain.parallel.grid import Grid


class Ordered(Protocol):
    """A stream, as far as it says which samples come in which order."""

    def state(self) -> dict[str, Any]:
        """Where it stands in which order."""
        ...


class Hashed(Protocol):
    """A tokenizer, as far as one is told from another."""

    sha256: str
    num_pieces: int


def describe(plan: RunConfig, world_size: int, stream: Ordered, tokenizer: Hashed) -> Manifest:
    """The run that is to be, before its first step."""
    grid = Grid.over(world_size, plan.parallel.tp, plan.parallel.pp)
    return Manifest(
        step=0,
        config=redacted(plan.model_dump(mode="json")),
        stream=stream.state(),
        tokenizer_sha256=tokenizer.sha256,
        num_pieces=tokenizer.num_pieces,
        layout={"world_size": world_size, "dp": grid.dp, "tp": grid.tp, "pp": grid.pp},
        versions=versions_here(),
    )


def refuse_other_run(run_dir: Path, written_config: Path, here: Manifest, changes: Changes) -> None:
    """ConfigError, with each knob as it was and as it is, where `run_dir` holds a run that meant something else.

    A run that was ended before its first checkpoint is known by `written_config`.
    """
    checkpoints = run_dir / "checkpoints"
    if os.path.lexists(checkpoints) and not checkpoints.is_dir():
        raise ConfigError([f"{checkpoints} is no folder, so nothing could be saved; move it, or name another run_dir"])
    found = look_at(checkpoints)
    if found is not None:
        changes.refuse(found.manifest, here)
        _refuse_weights_only(found.folder, run_dir)
    elif written_config.exists():
        config, refusals = read_config(written_config, (), trusted=False, opened=())
        if refusals:
            raise ConfigError([f"{written_config}: {refusal.sentence}" for refusal in refusals])
        changes.refuse(replace(here, config=config.model_dump(mode="json")), here)
    elif (run_dir / "log.jsonl").exists():
        raise ConfigError(
            [f"run_dir {run_dir} holds the log of a run, but not its {written_config.name}; name another"]
        )


def _refuse_weights_only(folder: Path, run_dir: Path) -> None:
    """CheckpointError where a checkpoint has weights and no moments: it can be scored and exported, not resumed."""
    if not any("/" in name for name in read_index(folder / TENSORS).state_dict_metadata):
        raise CheckpointError(
            f"{folder} has no optimizer moments, so it cannot be resumed; start a new run with "
            f"model.init_from={run_dir} and another run_dir"
        )
