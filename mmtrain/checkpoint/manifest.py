"""The page that says what a checkpoint is; it is written last, so a folder without one is a crash, not a checkpoint."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmtrain.checkpoint.planners import CheckpointError

FORMAT = "mmtrain-checkpoint/1"
MANIFEST = "manifest.json"
LATEST = "latest"
PARTIAL = ".partial"


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds beside its tensors."""

    step: int  # optimizer steps done
    config: dict[str, Any]  # the run's config, as plain values
    stream: dict[str, Any]  # where the data stands
    tokenizer_sha256: str
    num_pieces: int  # of the tokenizer
    format: str = FORMAT

    def refuse_other_tokenizer(self, sha256: str) -> None:
        """CheckpointError unless the tokenizer is the one that the weights were trained with."""
        if sha256 != self.tokenizer_sha256:
            raise CheckpointError(
                f"the checkpoint was trained with another tokenizer (sha256 {self.tokenizer_sha256[:12]}..., not "
                f"{sha256[:12]}...); set data.tokenizer to the one in its run folder"
            )

    def write(self, folder: Path) -> None:
        """Put the manifest into `folder`, whole or not at all."""
        partial = folder / (MANIFEST + PARTIAL)
        partial.write_text(json.dumps(asdict(self), indent=1))
        os.replace(partial, folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the checkpoint in `folder`; CheckpointError where there is none that can be read."""
    try:
        said = json.loads((folder / MANIFEST).read_text())
        if said.get("format") != FORMAT:
            raise CheckpointError(f"{folder} has format {said.get('format')!r}; this version reads {FORMAT!r}")
        return Manifest(**said)
    except (OSError, ValueError, TypeError, AttributeError) as fault:
        raise CheckpointError(f"{folder} holds no whole checkpoint: its {MANIFEST} cannot be read ({fault})") from None


def folder_of(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimizer steps stands."""
    return checkpoints / f"step-{step:08d}"


def find_latest(checkpoints: Path) -> Path:
    """The newest checkpoint under `checkpoints`; CheckpointError if there is none."""
    try:
        name = (checkpoints / LATEST).read_text().strip()
    except OSError:
        raise CheckpointError(f"{checkpoints} holds no checkpoint: there is no file {LATEST!r} in it") from None
    return checkpoints / name
