"""`mmdata verify`: damage in shards, named by shard and key."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_tools.duplicates import SeenImages
from data_tools.fetch import MAX_FILE_BYTES
from data_tools.images import ImageRules, image_extension, prepare_image
from data_tools.left_out import Unusable
from data_tools.metadata import MAX_FACTS_BYTES
from data_tools.pack import MANIFEST_NAME
from data_tools.parallel import run_in_order
from data_tools.prepare import MAX_TEXT_BYTES
from data_tools.progress import Progress
from data_tools.selection import CutRules
from data_tools.structure import caption_fault, explained_keys, layout_faults
from data_tools.tars import refused_members
from mmtrain.data.index import (
    DataError,
    Fault,
    Part,
    ShardEntry,
    ShardIndex,
    describe_shard,
    index_path,
    read_index,
    read_manifest,
    read_part,
    scan_shard,
)
from mmtrain.data.sample_check import metadata_faults
from mmtrain.data.sources import list_shards
from mmtrain.data.table import as_metadata
from mmtrain.io.json_text import JsonError, strict_json


@dataclass(frozen=True)
class Check:
    """One shard to look at."""

    path: Path
    expected: ShardEntry | None  # what the manifest says of it
    has_manifest: bool


@dataclass(frozen=True)
class Seal:
    """What tells one image from others."""

    key: str
    digest: bytes
    look: bytes | None


@dataclass(frozen=True)
class Verdict:
    """What was found in one shard."""

    shard: str
    num_samples: int
    faults: tuple[Fault, ...]
    seals: tuple[Seal, ...]  # of the images that can be decoded


@dataclass(frozen=True)
class Verification:
    """What was found in all of them."""

    num_shards: int
    num_samples: int
    faults: tuple[Fault, ...]
    without_manifest: tuple[Path, ...]  # folders whose checksums nobody wrote down
    num_equal: int  # images whose bytes another image has too


def verify_shards(places: Sequence[str], processes: int, *, duplicates: str = "allow") -> Verification:
    """Check every shard at `places` against its manifest and index, and decode every sample.

    `duplicates`: "exact" and "near" make faults of images that were there before.
    """
    named = list_shards(places, "SHARDS")
    shards = named.shards
    manifests, faults = _manifests({shard.parent for shard in shards})
    for folder in [folder for folder in named.folders if folder in manifests]:
        there = {shard.name for shard in shards if shard.parent == folder}
        faults += [Fault(name, "", "is in the manifest but missing") for name in manifests[folder] if name not in there]
    checks = [
        Check(shard, manifests.get(shard.parent, {}).get(shard.name), shard.parent in manifests) for shard in shards
    ]
    seen = SeenImages(CutRules().near_bits if duplicates == "near" else None)
    num_samples = num_equal = 0
    work = partial(check_shard, looks=duplicates == "near")
    with Progress("checking shards", len(checks)) as progress:
        for verdict in run_in_order(work, checks, min(processes, len(checks))):
            copies, equal = _copies(verdict, seen)
            num_samples, num_equal = num_samples + verdict.num_samples, num_equal + equal
            faults += [*verdict.faults, *(copies if duplicates != "allow" else ())]
            progress.advance()
    without = sorted({shard.parent for shard in shards} - manifests.keys())
    return Verification(len(shards), num_samples, tuple(faults), tuple(without), num_equal)


def check_shard(check: Check, *, looks: bool = False) -> Verdict:
    """Check one shard: bytes, index, members, keys, and every sample."""
    index, name, seals = scan_shard(check.path), check.path.name, []
    faults = [*index.faults, *_against_manifest(check, index), *_against_sidecar(index)]
    faults += [Fault(name, member.name, f"{why}; it is refused") for member, why in refused_members(check.path)]
    faults += layout_faults(index)
    explained = explained_keys(index)
    for key, parts in zip(index.keys, index.parts, strict=True):
        if key in explained:
            continue
        seal = _check_image(index, key, parts, faults, looks=looks)
        seals += [seal] if seal else []
        faults += [Fault(name, key, reason) for reason in _text_faults(index, parts)]
    return Verdict(name, len(index.keys), tuple(faults), tuple(seals))


def _copies(verdict: Verdict, seen: SeenImages) -> tuple[list[Fault], int]:
    """A fault for each image that was there before, and how many of them have the very bytes."""
    faults, num_equal = [], 0
    for seal in verdict.seals:
        if copy := seen.find(seal.digest, seal.look):
            num_equal += copy.num_bits is None
            alike = "has the same image as" if copy.num_bits is None else f"looks like ({copy.num_bits} bits differ)"
            faults.append(Fault(verdict.shard, seal.key, f"{alike} {copy.name}"))
        else:
            seen.add(seal.digest, seal.look, f"{verdict.shard}: {seal.key}")
    return faults, num_equal


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


def _check_image(
    index: ShardIndex, key: str, parts: dict[str, Part], faults: list[Fault], *, looks: bool
) -> Seal | None:
    extension = image_extension(parts)
    try:
        if extension is None:
            raise Unusable("has no image")
        if (size := parts[extension].size) > MAX_FILE_BYTES:
            raise Unusable("has too large an image", f"{size} bytes, at most {MAX_FILE_BYTES}")
        content = read_part(index.path, parts[extension])
        prepared = prepare_image(content, ImageRules(looks=looks))
        return Seal(key, hashlib.sha256(content).digest(), prepared.look)
    except Unusable as error:
        faults.append(Fault(index.path.name, key, f"{error.reason} ({error.detail})" if error.detail else error.reason))
    except DataError as error:
        faults.append(Fault(index.path.name, key, str(error)))
    return None


def _text_faults(index: ShardIndex, parts: dict[str, Part]) -> Iterator[str]:
    if "txt" not in parts:
        if fault := caption_fault(index, parts):
            yield fault
    elif parts["txt"].size > MAX_TEXT_BYTES:
        yield f"has a caption of {parts['txt'].size} bytes, at most {MAX_TEXT_BYTES}"
    elif not (caption := read_part(index.path, parts["txt"])).strip():
        yield "has an empty caption"
    elif not _is_utf8(caption):
        yield "has a caption that is not UTF-8"
    if "json" in parts and parts["json"].size > MAX_FACTS_BYTES:
        yield f"has a .json of {parts['json'].size} bytes, at most {MAX_FACTS_BYTES}"
    elif "json" in parts:
        content = read_part(index.path, parts["json"])
        fault = _json_fault(content)
        yield from [fault] if fault else metadata_faults(as_metadata(content))


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _json_fault(content: bytes) -> str:
    """Why a KEY.json cannot be used: it is no JSON, or holds what JSON has no word for; empty where it can."""
    try:
        strict_json(content)
    except JsonError as error:
        reason = str(error)
        if reason.startswith("holds "):
            return f"has a .json that {reason}"
        return "has a .json that cannot be parsed" + ("" if reason.startswith("not JSON") else f" ({reason})")
    return ""
