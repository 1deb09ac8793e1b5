"""`mmdata index`: indexes and manifests for shards that other tools have written."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.images import image_extension, upright_size
from data_tools.pack import MANIFEST_NAME
from data_tools.parallel import run_in_order
from data_tools.progress import Progress
from data_tools.structure import structure_faults
from data_tools.survey import Survey, survey_shard
from data_tools.target import check_index_names
from data_tools.tars import refused_members
from mmtrain.data.index import (
    DataError,
    Fault,
    Manifest,
    Part,
    ShardEntry,
    ShardIndex,
    describe_shard,
    find_shards,
    read_manifest,
    read_part,
    scan_shard,
    write_index,
    write_manifest,
)
from mmtrain.data.manifest import INDEXED
from mmtrain.data.sidecar import NO_SIZE


@dataclass(frozen=True)
class Indexed:
    """One shard and what it holds."""

    entry: ShardEntry | None  # none of a file that is no shard
    survey: Survey
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Indexing:
    """What was indexed."""

    num_shards: int
    num_samples: int
    faults: tuple[Fault, ...]


def index_shards(places: Sequence[str], processes: int, *, overwrite: bool = False) -> Indexing:
    """Write an index beside every shard, and enter the shards into the manifests of their folders.

    What a manifest says of other shards stays. A file that is no tar is named and gets no index. DataError where a
    manifest lists a shard already and may not be changed, or a name is taken by what mmdata has not written.
    """
    shards = find_shards(places, "SHARDS")
    folders: dict[Path, list[Path]] = {}
    for shard in shards:
        folders.setdefault(shard.parent, []).append(shard)
    manifests = {folder: _manifest_to_extend(folder, held, overwrite=overwrite) for folder, held in folders.items()}
    check_index_names(shards)
    done: dict[Path, list[Indexed]] = {folder: [] for folder in folders}
    with Progress("indexing shards", len(shards)) as progress:
        for shard, indexed in zip(shards, run_in_order(index_shard, shards, min(processes, len(shards))), strict=True):
            done[shard.parent].append(indexed)
            progress.advance()
    for folder, held in done.items():
        if entries := [indexed.entry for indexed in held if indexed.entry]:
            _extend_manifest(folder, manifests[folder], entries, [indexed.survey for indexed in held])
    entries = [indexed.entry for held in done.values() for indexed in held if indexed.entry]
    faults = tuple(fault for held in done.values() for indexed in held for fault in indexed.faults)
    return Indexing(len(entries), sum(entry.num_samples for entry in entries), faults)


def _manifest_to_extend(folder: Path, shards: Sequence[Path], *, overwrite: bool) -> Manifest | None:
    if not os.path.lexists(folder / MANIFEST_NAME):
        return None
    manifest = read_manifest(folder)
    listed = {entry.name for entry in manifest.shards} & {shard.name for shard in shards}
    if listed and not overwrite:
        raise DataError(
            f"{folder} already has a {MANIFEST_NAME} that lists {min(listed)}{', ...' if len(listed) > 1 else ''}; "
            "give --overwrite to index those shards anew"
        )
    return manifest


def _extend_manifest(
    folder: Path, old: Manifest | None, entries: Sequence[ShardEntry], surveys: Sequence[Survey]
) -> None:
    """Write the manifest with `entries` in place of, or beside, those that it lists."""
    before = {entry.name: entry for entry in old.shards} if old else {}
    new = {entry.name: entry for entry in entries}
    is_whole = {name for name in os.listdir(folder) if name.lower().endswith(".tar") and name[0] != "."} <= new.keys()
    # Of a folder that was indexed as a whole, shards that are listed but gone are forgotten.
    kept = {} if is_whole else {name: entry for name, entry in before.items() if name not in new}
    merged = sorted((kept | new).values(), key=lambda entry: entry.name)
    was_built = {name for name, entry in before.items() if name not in (old.indexed if old else ())}
    # A shard that is no longer the one that was built was written by somebody else.
    built = {name for name in was_built if name in kept or new.get(name) == before[name]}
    whole = Survey()
    for survey in surveys:
        whole.add(survey)
    counted = whole.record()
    statistics = {name: value for name, value in _as_dict(old).items() if name not in counted}
    if is_whole:
        statistics |= counted
    if old is None or not built:
        write_manifest(folder, merged, source=INDEXED, settings={}, statistics=statistics)
        return
    indexed = [entry.name for entry in merged if entry.name not in built]
    write_manifest(folder, merged, source=old.source, settings=old.settings, statistics=statistics, indexed=indexed)


def _as_dict(manifest: Manifest | None) -> dict[str, object]:
    return manifest.statistics if manifest and isinstance(manifest.statistics, dict) else {}


def measure(index: ShardIndex, parts: dict[str, Part]) -> tuple[int, int]:
    """Width and height of a sample's image as it is shown; NO_SIZE where it has none that can be read."""
    extension = image_extension(parts)
    return (extension and upright_size(read_part(index.path, parts[extension]))) or NO_SIZE


def index_shard(path: Path) -> Indexed:
    """Index one shard; no index for a file without a sample."""
    index = scan_shard(path)
    refused = [Fault(path.name, member.name, f"{why}; it is refused") for member, why in refused_members(path)]
    faults = (*index.faults, *structure_faults(index), *refused)
    if not index.keys:
        return Indexed(None, Survey(), faults or (Fault(path.name, "", "holds no sample"),))
    write_index(index, [measure(index, parts) for parts in index.parts])
    return Indexed(describe_shard(path, len(index.keys)), survey_shard(path), faults)
