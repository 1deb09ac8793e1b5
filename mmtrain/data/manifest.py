"""What a folder of shards holds, written beside them when they are built: manifest.json."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmtrain.data.faults import DataError
from mmtrain.io.atomic import atomic_write
from mmtrain.io.documents import read_regular
from mmtrain.io.file_kinds import HEAD_BYTES, describe_bytes
from mmtrain.io.json_text import lenient_json

FORMAT = "mmtrain-shards/1"
FILE_NAME = "manifest.json"
INDEXED = "mmdata index"  # the source of a set whose shards were all written by other tools


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
    listed_as_indexed: tuple[str, ...] = ()  # shards of other tools that `mmdata index` has added to built ones

    @property
    def indexed(self) -> tuple[str, ...]:
        """Names of the shards that another tool has written and `mmdata index` has only indexed."""
        return tuple(shard.name for shard in self.shards) if self.source == INDEXED else self.listed_as_indexed


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
    indexed: Sequence[str] = (),
) -> Path:
    """Write `folder`/manifest.json whole or not at all; the same arguments give the same bytes.

    `indexed` names the shards that another tool has written, where `source` does not say so of all.
    """
    content = {
        "format": FORMAT,
        "num_samples": sum(shard.num_samples for shard in shards),
        "shards": [asdict(shard) for shard in shards],
        "statistics": statistics,
        "source": source,
        "settings": settings,
    }
    if indexed:
        content["indexed"] = sorted(indexed)
    return atomic_write(Path(folder) / FILE_NAME, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of `folder`; DataError where there is none or it is not one."""
    path = Path(folder) / FILE_NAME
    try:
        content = read_regular(path)
    except FileNotFoundError as error:
        raise DataError(f"{folder} has no {FILE_NAME}; `mmdata build` and `mmdata synth` write one") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return parse_manifest(content, str(path))


def _checked(entry: ShardEntry) -> ShardEntry:
    """An entry of a manifest from outside: its name is one in the same folder, its numbers are counts."""
    name = entry.name
    if not isinstance(name, str) or not name or "/" in name or "\0" in name or name in (".", ".."):
        raise ValueError(f"{name!r} is no name of a shard")
    if not all(isinstance(count, int) and count >= 0 for count in (entry.num_samples, entry.bytes)):
        raise ValueError(f"{name} has counts that are none")
    return entry


def parse_manifest(text: bytes, name: str) -> Manifest:
    """The manifest that `text` is; DataError naming `name` where it is none."""
    try:
        content = lenient_json(text)
        if content["format"] != FORMAT:
            raise DataError(f"{name} has format {content['format']!r}, wanted {FORMAT!r}; build the shards again")
        shards = tuple(_checked(ShardEntry(**entry)) for entry in content["shards"])
        said = (content[key] for key in ("source", "settings", "statistics"))
        return Manifest(int(content["num_samples"]), shards, *said, tuple(map(str, content.get("indexed", ()))))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        kind = describe_bytes(text[:HEAD_BYTES])
        reason = f"it is {kind}" if kind else f"{type(error).__name__}: {error}"
        raise DataError(f"{name} is not a manifest of shards ({reason})") from error
