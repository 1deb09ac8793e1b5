"""`mmdata index`: indexes and manifests for shards that other tools have written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.images import image_extension, upright_size
from data_tools.pack import MANIFEST_NAME
from data_tools.parallel import run_in_order
from data_tools.progress import Progress
from data_tools.survey import Survey, survey_shard
from data_tools.tars import refused_members
from mmtrain.data.index import (
    DataError,
    Fault,
    Part,
    ShardEntry,
    ShardIndex,
    describe_shard,
    find_shards,
    read_part,
    scan_shard,
    write_index,
    write_manifest,
)
from mmtrain.data.sidecar import NO_SIZE


@dataclass(frozen=True)
class Indexed:
    """One shard and what it holds."""

    entry: ShardEntry
    survey: Survey
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Indexing:
    """What was indexed."""

    num_shards: int
    num_samples: int
    faults: tuple[Fault, ...]


def index_shards(places: Sequence[str], processes: int, *, overwrite: bool = False) -> Indexing:
    """Write an index beside every shard, and for each folder a manifest of the shards named; nothing is unpacked.

    DataError where a folder has a manifest already that may not be overwritten.
    """
    shards = find_shards(places, "SHARDS")
    folders: dict[Path, list[Indexed]] = {shard.parent: [] for shard in shards}
    for folder in folders:
        if (folder / MANIFEST_NAME).exists() and not overwrite:
            raise DataError(f"{folder} already has a {MANIFEST_NAME}; give --overwrite to write it anew")
    with Progress("indexing shards", len(shards)) as progress:
        found = run_in_order(index_shard, shards, min(processes, len(shards)))
        for shard, indexed in zip(shards, found, strict=True):
            folders[shard.parent].append(indexed)
            progress.advance()
    for folder, held in folders.items():
        whole = Survey()
        for indexed in held:
            whole.add(indexed.survey)
        entries = [indexed.entry for indexed in held]
        write_manifest(folder, entries, source="mmdata index", settings={}, statistics=whole.record())
    done = [indexed for held in folders.values() for indexed in held]
    faults = tuple(fault for indexed in done for fault in indexed.faults)
    return Indexing(len(shards), sum(indexed.entry.num_samples for indexed in done), faults)


def measure(index: ShardIndex, parts: dict[str, Part]) -> tuple[int, int]:
    """Width and height of a sample's image as it is shown; NO_SIZE where it has none that can be read."""
    extension = image_extension(parts)
    return (extension and upright_size(read_part(index.path, parts[extension]))) or NO_SIZE


def index_shard(path: Path) -> Indexed:
    """Index one shard."""
    index = scan_shard(path)
    write_index(index, [measure(index, parts) for parts in index.parts])
    refused = [Fault(path.name, member.name, f"{why}; it is refused") for member, why in refused_members(path)]
    survey = survey_shard(path)
    return Indexed(describe_shard(path, len(index.keys)), survey, (*index.faults, *refused))
