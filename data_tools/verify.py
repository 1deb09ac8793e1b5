"""`mmdata verify`: damage in shards, named by shard and key."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.images import load_image, open_image
from data_tools.left_out import Unusable
from data_tools.pack import MANIFEST_NAME
from data_tools.parallel import run_in_order
from data_tools.progress import Progress
from data_tools.survey import image_extension
from mmtrain.data.index import (
    DataError,
    Fault,
    Part,
    ShardEntry,
    ShardIndex,
    describe_shard,
    find_shards,
    index_path,
    read_index,
    read_manifest,
    read_part,
    scan_shard,
)


@dataclass(frozen=True)
class Check:
    """One shard to look at."""

    path: Path
    expected: ShardEntry | None  # what the manifest says of it
    has_manifest: bool


@dataclass(frozen=True)
class Verdict:
    """What was found in one shard."""

    num_samples: int
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Verification:
    """What was found in all of them."""

    num_shards: int
    num_samples: int
    faults: tuple[Fault, ...]
    without_manifest: tuple[Path, ...]  # folders whose checksums nobody wrote down


def verify_shards(places: Sequence[str], processes: int) -> Verification:
    """Check every shard at `places` against its manifest and index, and decode every sample."""
    shards = find_shards(places, "SHARDS")
    manifests, faults = _manifests({shard.parent for shard in shards})
    for folder in [Path(place) for place in places if Path(place) in manifests]:
        there = {shard.name for shard in shards if shard.parent == folder}
        faults += [Fault(name, "", "is in the manifest but missing") for name in manifests[folder] if name not in there]
    checks = [
        Check(shard, manifests.get(shard.parent, {}).get(shard.name), shard.parent in manifests) for shard in shards
    ]
    num_samples = 0
    with Progress("checking shards", len(checks)) as progress:
        for verdict in run_in_order(check_shard, checks, min(processes, len(checks))):
            num_samples += verdict.num_samples
            faults += verdict.faults
            progress.advance()
    without = sorted({shard.parent for shard in shards} - manifests.keys())
    return Verification(len(shards), num_samples, tuple(faults), tuple(without))


def check_shard(check: Check) -> Verdict:
    """Check one shard: bytes, index, and every sample."""
    index = scan_shard(check.path)
    faults = [*index.faults, *_against_manifest(check, index), *_against_sidecar(index)]
    for key, parts in zip(index.keys, index.parts, strict=True):
        faults += [Fault(check.path.name, key, reason) for reason in _sample_faults(index, parts)]
    return Verdict(len(index.keys), tuple(faults))


def _manifests(folders: set[Path]) -> tuple[dict[Path, dict[str, ShardEntry]], list[Fault]]:
    manifests, faults = {}, []
    for folder in sorted(folders):
        if (folder / MANIFEST_NAME).exists():
            try:
                manifests[folder] = {entry.name: entry for entry in read_manifest(folder).shards}
            except DataError as error:
                faults.append(Fault(MANIFEST_NAME, "", str(error)))
    return manifests, faults


def _against_manifest(check: Check, index: ShardIndex) -> Iterator[Fault]:
    name, expected = check.path.name, check.expected
    if expected is None:
        if check.has_manifest:
            yield Fault(name, "", "is not in the manifest")
        return
    found = describe_shard(check.path, len(index.keys))
    if found.num_samples != expected.num_samples:
        yield Fault(name, "", f"holds {found.num_samples} samples, the manifest says {expected.num_samples}")
    if found.bytes != expected.bytes:
        yield Fault(name, "", f"is {found.bytes} bytes long, the manifest says {expected.bytes}")
    elif found.sha256 != expected.sha256:
        yield Fault(name, "", "has another checksum (sha256) than the manifest says")


def _against_sidecar(index: ShardIndex) -> Iterator[Fault]:
    if not index_path(index.path).exists():
        return
    try:
        sidecar = read_index(index.path)
    except DataError as error:
        yield Fault(index.path.name, "", f"its index cannot be used: {error}")
        return
    if (sidecar.keys, sidecar.parts) != (index.keys, index.parts):
        yield Fault(index.path.name, "", "its index does not fit the tar; delete it, it is made anew when read")


def _sample_faults(index: ShardIndex, parts: dict[str, Part]) -> Iterator[str]:
    extension = image_extension(parts)
    if extension is None:
        yield "has no image"
    else:
        try:
            load_image(open_image(read_part(index.path, parts[extension])))
        except Unusable as error:
            yield f"{error.reason} ({error.detail})" if error.detail else error.reason
    if "txt" not in parts:
        yield "has no caption"
    elif not read_part(index.path, parts["txt"]).strip():
        yield "has an empty caption"
    elif not _is_utf8(read_part(index.path, parts["txt"])):
        yield "has a caption that is not UTF-8"
    if "json" in parts and not _is_json(read_part(index.path, parts["json"])):
        yield "has a .json that cannot be parsed"


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True
