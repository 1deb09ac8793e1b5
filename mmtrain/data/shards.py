"""The shards of one set: where each lies and how many samples it holds, without reading the tars. No torch.

Counts come from the manifest of the folder, else from the index beside a shard; only a shard with neither is
walked. Kept per shard: its location, two integers, nothing of its samples.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from mmtrain.data.faults import DataError, Fault
from mmtrain.data.index import index_path
from mmtrain.data.manifest import FILE_NAME, Manifest, ShardEntry, parse_manifest, read_manifest
from mmtrain.data.places import Access
from mmtrain.data.sidecar import decode
from mmtrain.data.sources import TAR_SUFFIX, data_errors, list_shards
from mmtrain.io.documents import read_regular
from mmtrain.io.errors import NotFoundError
from mmtrain.io.file_kinds import A_TAR, describe_file
from mmtrain.io.paths import expand_url
from mmtrain.io.text import redact
from mmtrain.io.urls import (
    PIPE,
    file_name,
    has_suffix,
    is_http,
    is_remote,
    join_url,
    parent_url,
    shown_name,
    strip_query,
)

UNKNOWN_BYTES = -1


@dataclass(frozen=True, eq=False)
class Shards:
    """The shards of one set, sorted by location."""

    locations: tuple[str, ...]  # path or URL of each tar
    starts: np.ndarray  # int64 [shards + 1]: number of each shard's first sample
    tar_bytes: np.ndarray  # int64 [shards]: what the manifest says, UNKNOWN_BYTES without one
    digest: str  # tells sets apart: another set, or the same in other shards, gives another one
    faults: tuple[Fault, ...]  # what walking found; of a shard in a manifest, that is what building found
    num_lost: int = 0  # samples that damage has taken from the shards, as far as can be told

    @property
    def num_samples(self) -> int:
        """Samples of all shards together."""
        return int(self.starts[-1])

    def name(self, shard: int) -> str:
        """The file name of a shard."""
        return shown_name(self.locations[shard])

    def refuse_replaced(self) -> None:
        """DataError where a local shard is not as long as its manifest says; one call of stat(2) a shard."""
        for location, expected in zip(self.locations, self.tar_bytes.tolist(), strict=True):
            if expected != UNKNOWN_BYTES and not is_remote(location):
                refuse_replaced(location, expected)


def refuse_replaced(location: str, expected_bytes: int) -> None:
    """DataError where a local shard is not as long as its manifest says: another file, a cut one, a git-lfs pointer."""
    try:
        found = os.stat(location).st_size
        kind = None if found == expected_bytes else describe_file(location)
    except OSError as error:
        raise DataError(f"{location} cannot be read: {error.strerror}") from error
    if found != expected_bytes:
        raise DataError(
            f"{location} is {found} bytes long, but its manifest says {expected_bytes}"
            f"{'' if kind in (None, A_TAR) else f'; it is {kind}'}; bring back the right one, or build the set again"
        )


@dataclass(frozen=True)
class _Counted:
    location: str
    num_samples: int
    tar_bytes: int
    checksum: str
    faults: tuple[Fault, ...] = ()
    num_lost: int = 0


def open_shards(places: Sequence[str], access: Access, knob: str = "data.train") -> Shards:
    """The shards at `places` (folders, tars, patterns, URLs, pipe:); DataError naming `knob` if none has a sample."""
    local = [place for place in places if not is_remote(place)]
    counted = _count_local(local, access, knob) if local or not places else []
    remote = [url for place in places if is_remote(place) for url in _expand(place, knob)]
    counted += [shard for url in remote for shard in _count_remote(url, access, knob)]
    # Without the query, so that a signature, which changes from day to day, does not change the order.
    counted.sort(key=lambda shard: strip_query(shard.location))
    _refuse_doubled(counted, knob)
    faults = tuple(fault for shard in counted for fault in shard.faults)
    starts = np.concatenate([[0], np.cumsum([shard.num_samples for shard in counted])]).astype(np.int64)
    if not starts[-1]:
        said = [str(fault) for fault in faults[:3]]
        raise DataError("; ".join([f"{knob} names {len(counted)} shards without one sample in them", *said]))
    digest = hashlib.blake2b(digest_size=16)
    for shard in counted:
        line = f"{file_name(shard.location)}\0{shard.num_samples}\0{shard.checksum}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    tar_bytes = np.array([shard.tar_bytes for shard in counted], np.int64)
    num_lost = sum(shard.num_lost for shard in counted)
    return Shards(tuple(shard.location for shard in counted), starts, tar_bytes, digest.hexdigest(), faults, num_lost)


def _expand(place: str, knob: str) -> list[str]:
    with data_errors():
        return expand_url(place, knob)


def _refuse_doubled(counted: Sequence[_Counted], knob: str) -> None:
    for before, shard in pairwise(counted):
        if strip_query(before.location) == strip_query(shard.location):
            name = redact(shard.location)
            raise DataError(f"{knob} names {name!r} 2 times; each of its samples would be read as often")


def _count_local(places: Sequence[str], access: Access, knob: str) -> list[_Counted]:
    found = list_shards(places, knob)
    manifests = {
        folder: _listed(read_manifest(folder))
        for folder in sorted({shard.parent for shard in found.shards})
        if (folder / FILE_NAME).exists()
    }
    for folder in found.folders:
        if folder in manifests:
            there = {shard.name for shard in found.shards if shard.parent == folder}
            _refuse_missing(folder, manifests[folder], there, knob)
    return [_count(_location(shard), manifests.get(shard.parent, {}).get(shard.name), access) for shard in found.shards]


def _location(shard: Path) -> str:
    """A local path as a location: never one that reads as an address or a command, as the file "pipe:x.tar" would."""
    return f"./{shard}" if is_remote(str(shard)) else str(shard)


def _listed(manifest: Manifest) -> dict[str, ShardEntry]:
    return {entry.name: entry for entry in manifest.shards}


def _refuse_missing(folder: Path, listed: dict[str, ShardEntry], there: set[str], knob: str) -> None:
    if missing := sorted(listed.keys() - there):
        raise DataError(
            f"{knob} names {str(folder)!r}, whose {FILE_NAME} lists {len(missing)} shards that are not there, "
            f"{missing[0]} first; bring them back, or build the set again"
        )


def _count(location: str, entry: ShardEntry | None, access: Access) -> _Counted:
    if entry is not None:
        if is_remote(location):
            access.expect(location, entry)
        return _Counted(location, entry.num_samples, entry.bytes, entry.sha256)
    sidecar, name = access.sidecar(location), shown_name(location)
    digest = hashlib.blake2b(digest_size=16)
    for extension, column in sidecar.columns.items():
        digest.update(extension.encode("utf-8", "surrogateescape") + column.tobytes())
    faults = tuple(Fault(name, key, reason) for key, reason in sidecar.faults)
    lost = max(sidecar.num_lost, _num_indexed(location) - sidecar.num_samples) if faults else 0
    return _Counted(location, sidecar.num_samples, UNKNOWN_BYTES, digest.hexdigest(), faults, lost)


def _num_indexed(location: str) -> int:
    """Samples that a shard had when its index was written, 0 without one: of a tar cut since then, more than now."""
    path = index_path(Path(location))
    if is_remote(location) or not path.exists():
        return 0
    try:
        return decode(read_regular(path), str(path)).num_samples
    except (DataError, OSError):  # an index that cannot be read counts nothing, and the tar has been walked instead
        return 0


def _count_remote(url: str, access: Access, knob: str) -> list[_Counted]:
    access.need_cache()
    if url.startswith(PIPE):
        return [_count(url, None, access)]
    if has_suffix(url, (TAR_SUFFIX,)):
        return [_count(url, _manifest_beside(url, access).get(file_name(url)), access)]
    if listed := _remote_manifest(url, access):
        return [_count(join_url(url, name), entry, access) for name, entry in listed.items()]
    if tars := [tar for tar in access.list_tars(url) if not file_name(tar).startswith(".")]:
        return [_count(tar, None, access) for tar in tars]
    lacks, folder = "a manifest.json" if is_http(url) else "a .tar", redact(strip_query(url)).rstrip("/")
    raise DataError(
        f"{knob} is {redact(url)!r}, where {lacks} is missing; name tars (the path of their address ends in .tar), as "
        f"in {folder}/set-{{000000..000009}}.tar"
    )


def _manifest_beside(tar: str, access: Access) -> dict[str, ShardEntry]:
    """The manifest in the folder of a single tar.

    The signature of a signed address may hold for the tar alone: what else is asked with it is nice to have.
    """
    try:
        return _remote_manifest(parent_url(tar), access)
    except DataError:
        if strip_query(tar) == tar:
            raise
        return {}


def _remote_manifest(folder: str, access: Access) -> dict[str, ShardEntry]:
    url = join_url(folder, FILE_NAME)
    if url not in access.manifests:
        try:
            access.manifests[url] = _listed(parse_manifest(access.read_file(url), redact(url)))
        except DataError as error:
            if not isinstance(error.__cause__, NotFoundError):
                raise
            access.manifests[url] = {}
    return access.manifests[url]
