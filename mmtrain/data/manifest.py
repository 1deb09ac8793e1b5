"""What a folder of shards holds, written beside them when they are built: manifest.json."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmtrain.data.faults import DataError
from mmtrain.io.atomic import atomic_write

FORMAT = "mmtrain-shards/1"
FILE_NAME = "manifest.json"


@dataclass(frozen=True)
class ShardEntry:
    """One shard as the manifest lists it."""

    name: str  # file name of the tar
    num_samples: int
    bytes: int  # size of the tar
    sha256: str  # of the tar


@dataclass(frozen=True)
class Manifest:
    """A folder of shards, and how it came to be."""

    num_samples: int
    shards: tuple[ShardEntry, ...]
    source: Any
    settings: Any
    statistics: Any


def describe_shard(tar_path: Path, num_samples: int) -> ShardEntry:
    """The manifest's line of a finished tar; reads it once for its checksum."""
    with open(tar_path, "rb") as tar:
        sha256 = hashlib.file_digest(tar, "sha256").hexdigest()
    return ShardEntry(tar_path.name, num_samples, tar_path.stat().st_size, sha256)


def write_manifest(
    folder: Path,
    shards: Sequence[ShardEntry],
    *,
    source: Any,
    settings: Any,
    statistics: Any,
) -> Path:
    """Write `folder`/manifest.json whole or not at all; the same arguments give the same bytes."""
    content = {
        "format": FORMAT,
        "num_samples": sum(shard.num_samples for shard in shards),
        "shards": [asdict(shard) for shard in shards],
        "statistics": statistics,
        "source": source,
        "settings": settings,
    }
    return atomic_write(Path(folder) / FILE_NAME, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of `folder`; DataError where there is none or it is not one."""
    path = Path(folder) / FILE_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{folder} has no {FILE_NAME}; `mmdata build` and `mmdata synth` write one") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return parse_manifest(content, str(path))


def parse_manifest(text: bytes, name: str) -> Manifest:
    """The manifest that `text` is; DataError naming `name` where it is none."""
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise DataError(f"{name} has format {content['format']!r}, wanted {FORMAT!r}; build the shards again")
        shards = tuple(ShardEntry(**entry) for entry in content["shards"])
        said = (content[key] for key in ("source", "settings", "statistics"))
        return Manifest(content["num_samples"], shards, *said)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{name} is not a manifest of shards ({type(error).__name__}: {error})") from error
