"""The page that says what a checkpoint is; it is written last, so a folder without one is a crash, not a checkpoint."""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.io.atomic import atomic_write

FORMAT = "mmtrain-checkpoint/2"
MANIFEST = "manifest.json"
CHECKSUM = "checksum"  # of the manifest's other lines
RECORDED = ("mmtrain", "torch", "deepspeed", "megatron-core", "numpy", "sentencepiece")


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds beside its tensors."""

    step: int  # optimizer steps done
    config: dict[str, Any]  # the run's config, as plain values
    stream: dict[str, Any]  # where the data stands
    tokenizer_sha256: str
    num_pieces: int  # of the tokenizer
    engine: dict[str, int] = field(default_factory=dict)  # what the engine needs beside its tensors
    layout: dict[str, int] = field(default_factory=dict)  # world_size, dp, tp, pp of the ranks that wrote it
    versions: dict[str, str] = field(default_factory=dict)  # what it was written with
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # {name: {bytes, sha256}} of everything else in it
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
        said = asdict(self)
        atomic_write(folder / MANIFEST, json.dumps({**said, CHECKSUM: _checksum(said)}, indent=1))


def _checksum(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the checkpoint in `folder`; CheckpointError where there is none that can be read."""
    try:
        said = json.loads((folder / MANIFEST).read_text())
        if said.get("format") != FORMAT:
            raise CheckpointError(f"{folder} has format {said.get('format')!r}; this version reads {FORMAT!r}")
        checksum = said.pop(CHECKSUM)
        if checksum != _checksum(said):
            raise CheckpointError(f"{folder} holds no whole checkpoint: its {MANIFEST} was changed or damaged")
        return Manifest(**said)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as fault:
        raise CheckpointError(f"{folder} holds no whole checkpoint: its {MANIFEST} cannot be read ({fault})") from None


def versions_here() -> dict[str, str]:
    """What a checkpoint that is written here is written with."""
    found = {"python": sys.version.split()[0]}
    for name in RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
