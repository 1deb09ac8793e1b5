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
from mmtrain.config.load import ConfigError, plan_of
from mmtrain.config.schema import RunConfig
from mmtrain.io.atomic import atomic_write
from mmtrain.io.documents import DocumentError, read_json_object

FORMAT = "mmtrain-checkpoint/3"
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

    def plan(self) -> RunConfig:
        """The config of the run that wrote it; CheckpointError where this version does not understand it."""
        try:
            return plan_of(self.config)
        except ConfigError as error:
            raise CheckpointError(f"the config in the checkpoint is not one of this version: {error}") from None

    def write(self, folder: Path) -> None:
        """Put the manifest into `folder`, whole or not at all."""
        said = asdict(self)
        atomic_write(folder / MANIFEST, json.dumps({**said, CHECKSUM: _checksum(said)}, indent=1))


def _checksum(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the checkpoint in `folder`; CheckpointError where there is none that can be read."""
    try:
        said = read_json_object(folder / MANIFEST)
        if said.get("format") != FORMAT:
            raise CheckpointError(f"{folder} has format {said.get('format')!r}; this version reads {FORMAT!r}")
        checksum = said.pop(CHECKSUM)
        if checksum != _checksum(said):
            raise CheckpointError(f"{folder} holds no whole checkpoint: its {MANIFEST} was changed or damaged")
        manifest = Manifest(**said)
        _refuse_other_types(manifest)
        return manifest
    except (DocumentError, OSError, ValueError, TypeError, AttributeError, KeyError) as fault:
        raise CheckpointError(f"{folder} holds no whole checkpoint: its {MANIFEST} cannot be read ({fault})") from None


def _refuse_other_types(manifest: Manifest) -> None:
    """ValueError where a value is of another type than is written: a manifest may come from anyone."""
    tables = ("config", "stream", "engine", "layout", "versions", "files")
    if any(not isinstance(getattr(manifest, name), dict) for name in tables):
        raise ValueError(f"one of {', '.join(tables)} is no table")
    if any(type(number) is not int or number < 0 for number in (manifest.step, manifest.num_pieces)):
        raise ValueError("step or num_pieces is no whole number")
    if not isinstance(manifest.tokenizer_sha256, str):
        raise ValueError("tokenizer_sha256 is no text")
    for record in manifest.files.values():
        if type(record["bytes"]) is not int or not isinstance(record["sha256"], str):
            raise ValueError("files is no table of sizes and checksums")
    if not all(isinstance(manifest.config.get(name), dict) for name in ("model", "data", "train", "loss", "itc")):
        raise ValueError("config is no config of a run")


def versions_here() -> dict[str, str]:
    """What a checkpoint that is written here is written with."""
    found = {"python": sys.version.split()[0]}
    for name in RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
