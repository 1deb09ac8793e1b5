"""The shards of one set: where each lies and how many samples it holds, without reading the tars. No torch.

Counts come from the manifest of the folder, else from the index beside a shard; only a shard with neither is
walked. Kept per shard: its location, two integers, nothing of its samples.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from braceexpand import braceexpand

from mmtrain.data.faults import DataError, Fault
from mmtrain.data.manifest import FILE_NAME, Manifest, ShardEntry, parse_manifest, read_manifest
from mmtrain.data.places import Access
from mmtrain.data.remote import HTTP, PIPE, is_remote
from mmtrain.data.sources import find_shards

UNKNOWN_BYTES = -1


@dataclass(frozen=True, eq=False)
class Shards:
    """The shards of one set, sorted by location."""

    locations: tuple[str, ...]  # path or URL of each tar
    starts: np.ndarray  # int64 [shards + 1]: number of each shard's first sample
    tar_bytes: np.ndarray  # int64 [shards]: what the manifest says, UNKNOWN_BYTES without one
    digest: str  # tells sets apart: another set, or the same in other shards, gives another one
    faults: tuple[Fault, ...]  # what walking found; of a shard in a manifest, that is what building found

    @property
    def num_samples(self) -> int:
        """Samples of all shards together."""
        return int(self.starts[-1])

    def name(self, shard: int) -> str:
        """The file name of a shard."""
        return self.locations[shard].rsplit("/", 1)[-1]


@dataclass(frozen=True)
class _Counted:
    location: str
    num_samples: int
    tar_bytes: int
    checksum: str
    faults: tuple[Fault, ...] = ()


def open_shards(places: Sequence[str], access: Access, knob: str = "data.train") -> Shards:
    """The shards at `places` (folders, tars, patterns, URLs, pipe:); DataError naming `knob` if none has a sample."""
    local = [place for place in places if not is_remote(place)]
    counted = _count_local(local, access, knob) if local or not places else []
    for place in (place for place in places if is_remote(place)):
        counted += [shard for url in braceexpand(place) for shard in _count_remote(url, access, knob)]
    counted.sort(key=lambda shard: shard.location)
    faults = tuple(fault for shard in counted for fault in shard.faults)
    starts = np.concatenate([[0], np.cumsum([shard.num_samples for shard in counted])]).astype(np.int64)
    if not starts[-1]:
        said = [str(fault) for fault in faults[:3]]
        raise DataError("; ".join([f"{knob} names {len(counted)} shards without one sample in them", *said]))
    digest = hashlib.blake2b(digest_size=16)
    for shard in counted:
        digest.update(f"{shard.location.rsplit('/', 1)[-1]}\0{shard.num_samples}\0{shard.checksum}\n".encode())
    tar_bytes = np.array([shard.tar_bytes for shard in counted], np.int64)
    return Shards(tuple(shard.location for shard in counted), starts, tar_bytes, digest.hexdigest(), faults)


def _count_local(places: Sequence[str], access: Access, knob: str) -> list[_Counted]:
    shards = find_shards(places, knob)
    manifests = {folder: _listed(read_manifest(folder)) for folder in _folders(shards) if (folder / FILE_NAME).exists()}
    for folder in (Path(place) for place in places):
        if folder in manifests:
            _refuse_missing(folder, manifests[folder], {shard.name for shard in shards if shard.parent == folder}, knob)
    return [_count(str(shard), manifests.get(shard.parent, {}).get(shard.name), access) for shard in shards]


def _folders(shards: Sequence[Path]) -> list[Path]:
    return sorted({shard.parent for shard in shards})


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
        return _Counted(location, entry.num_samples, entry.bytes, entry.sha256)
    sidecar, name = access.sidecar(location), location.rsplit("/", 1)[-1]
    digest = hashlib.blake2b(digest_size=16)
    for extension, column in sidecar.columns.items():
        digest.update(extension.encode() + column.tobytes())
    faults = tuple(Fault(name, key, reason) for key, reason in sidecar.faults)
    return _Counted(location, sidecar.num_samples, UNKNOWN_BYTES, digest.hexdigest(), faults)


def _count_remote(url: str, access: Access, knob: str) -> list[_Counted]:
    access.need_cache()
    if url.startswith(PIPE):
        return [_count(url, None, access)]
    is_tar = url.endswith(".tar")
    folder = url.rsplit("/", 1)[0] if is_tar else url.rstrip("/")
    listed = _remote_manifest(folder, access)
    if is_tar:
        return [_count(url, listed.get(url.rsplit("/", 1)[-1]), access)]
    if listed:
        return [_count(f"{folder}/{name}", entry, access) for name, entry in listed.items()]
    if tars := access.remote.folder(folder):
        return [_count(tar, None, access) for tar in tars]
    lacks = "a manifest.json" if url.startswith(HTTP) else "a .tar"
    raise DataError(
        f"{knob} is {url!r}, where {lacks} is missing; name tars, as in {folder}/set-{{000000..000009}}.tar"
    )


def _remote_manifest(folder: str, access: Access) -> dict[str, ShardEntry]:
    url = f"{folder}/{FILE_NAME}"
    if url not in access.manifests:
        try:
            access.manifests[url] = _listed(parse_manifest(access.remote.whole(url), url))
        except DataError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            access.manifests[url] = {}
    return access.manifests[url]
