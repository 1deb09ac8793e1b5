"""Where every sample of a shard lies: found by walking the tar once, kept in a sidecar, read at random. No torch."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmtrain.data.faults import DataError, Fault
from mmtrain.data.manifest import Manifest, ShardEntry, describe_shard, read_manifest, write_manifest
from mmtrain.data.sidecar import ABSENT, Sidecar, decode, encode
from mmtrain.data.sources import find_shards
from mmtrain.data.tar import BLOCK_BYTES, Member, TarDamage, tar_members
from mmtrain.io.atomic import atomic_write
from mmtrain.io.documents import read_regular

__all__ = [
    "DataError",
    "Fault",
    "Manifest",
    "Part",
    "ShardEntry",
    "ShardIndex",
    "describe_shard",
    "find_shards",
    "index_path",
    "open_index",
    "open_sidecar",
    "read_index",
    "read_manifest",
    "read_part",
    "read_sidecar",
    "scan_shard",
    "write_index",
    "write_manifest",
]

NUM_PROBES = 8  # headers of a tar that its index remembers, to notice a tar that was written anew
MAX_OPEN_SHARDS = 256  # descriptors kept open; well below the usual limit of 1024


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes of one file inside a tar."""

    offset: int  # bytes from the start of the tar
    size: int  # bytes


@dataclass(frozen=True)
class ShardIndex:
    """The samples of one tar, in its order."""

    path: Path
    keys: tuple[str, ...]
    parts: tuple[dict[str, Part], ...]  # per sample: lower-case extension, all behind the first dot -> where it lies
    faults: tuple[Fault, ...]  # what of the tar could not be used


def scan_shard(path: Path) -> ShardIndex:
    """Index the tar at `path` by walking its headers; a damaged tar yields its whole members and a Fault."""
    path, faults = Path(path), []
    samples: list[tuple[str, dict[str, Part]]] = []
    try:
        for member in tar_members(path):
            faults += _enter(member, samples, path.name)
    except TarDamage as damage:
        faults.append(Fault(path.name, _split_name(damage.member)[0], f"the tar {damage}"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return ShardIndex(path, tuple(key for key, _ in samples), tuple(parts for _, parts in samples), tuple(faults))


def _enter(member: Member, samples: list[tuple[str, dict[str, Part]]], shard: str) -> list[Fault]:
    """Add a member to its sample: as for any WebDataset reader, neighbours with one key are one sample."""
    key, extension = _split_name(member.name)
    if not key or not extension:
        return []
    if not samples or samples[-1][0] != key:
        samples.append((key, {}))
    parts = samples[-1][1]
    if extension in parts:
        return [Fault(shard, key, f"has two files .{extension}; the first is used")]
    parts[extension] = Part(member.offset, member.size)
    return []


def _split_name(name: str) -> tuple[str, str]:
    """Key and lower-case extension; an empty key for what is no part of a sample (hidden files, no extension)."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return (f"{folder}{slash}{stem}" if stem else ""), extension.lower()


def index_path(tar_path: Path) -> Path:
    """Where the index of a tar lies."""
    return Path(f"{tar_path}.index")


def write_index(index: ShardIndex, sizes: Sequence[tuple[int, int]] | None = None) -> Path:
    """Write the sidecar of `index` beside its tar, whole or not at all; `sizes` are its images' widths and heights."""
    return atomic_write(index_path(index.path), encode_index(index, sizes), durable=False)


def encode_index(index: ShardIndex, sizes: Sequence[tuple[int, int]] | None = None) -> bytes:
    """The bytes of the sidecar of `index`."""
    extensions = sorted({extension for parts in index.parts for extension in parts})
    absent = Part(ABSENT, ABSENT)
    columns = {
        extension: np.array([astuple(parts.get(extension, absent)) for parts in index.parts], np.int64)
        for extension in extensions
    }
    faults = [(fault.key, fault.reason) for fault in index.faults]
    return encode(index.path.stat().st_size, _probes(index.path, _firsts(columns)), index.keys, columns, faults, sizes)


def _firsts(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Where the first part of each sample begins in the tar, int64 [samples]."""
    offsets = np.stack([column[:, 0] for column in columns.values()]) if columns else np.empty((1, 0), np.int64)
    return np.where(offsets == ABSENT, np.iinfo(np.int64).max, offsets).min(axis=0)


def _probes(tar_path: Path, firsts: np.ndarray) -> str:
    """A digest of some headers: another tar of the same size gives another one."""
    digest, last = hashlib.blake2b(digest_size=16), len(firsts) - 1
    # Opened anew, never from the cache: under the same name another file may lie by now.
    with open(tar_path, "rb", buffering=0) as tar:
        for number in sorted({last * probe // (NUM_PROBES - 1) for probe in range(NUM_PROBES)}) if len(firsts) else ():
            digest.update(os.pread(tar.fileno(), BLOCK_BYTES, int(firsts[number]) - BLOCK_BYTES))
    return digest.hexdigest()


def read_sidecar(tar_path: Path) -> Sidecar:
    """The sidecar of `tar_path`; DataError where there is none, it is damaged, or the tar is no longer the same."""
    sidecar = index_path(tar_path)
    try:
        found = decode(read_regular(sidecar), str(sidecar))
        fresh = found.tar_bytes == os.stat(tar_path).st_size and found.probes == _probes(
            tar_path, _firsts(found.columns)
        )
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} does not exist") from error
    except (OSError, OverflowError) as error:
        raise DataError(f"{sidecar} is not an index ({type(error).__name__}: {error})") from error
    if not fresh:
        raise DataError(f"{sidecar} belongs to another {Path(tar_path).name} than the one that lies there")
    return found


def open_sidecar(tar_path: Path) -> Sidecar:
    """What the index of a tar says: read beside it if that is whole and fresh, else found by walking the tar."""
    try:
        return read_sidecar(tar_path)
    except DataError:
        return decode(encode_index(scan_shard(tar_path)), f"the index of {tar_path}")


def read_index(tar_path: Path) -> ShardIndex:
    """The index beside `tar_path`; DataError where there is none, it is damaged, or the tar is no longer the same."""
    tar_path = Path(tar_path)
    found = read_sidecar(tar_path)
    columns = {extension: column.tolist() for extension, column in found.columns.items()}
    parts = tuple(
        {extension: Part(*column[number]) for extension, column in columns.items() if column[number][0] != ABSENT}
        for number in range(found.num_samples)
    )
    return ShardIndex(tar_path, found.keys, parts, tuple(Fault(tar_path.name, *fault) for fault in found.faults))


def open_index(tar_path: Path) -> ShardIndex:
    """The index of a tar: from its sidecar if that is whole and fresh, else by walking the tar."""
    try:
        return read_index(tar_path)
    except DataError:
        return scan_shard(tar_path)


class _Descriptor:
    """An open file that closes itself when nobody reads it any more."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


# Dropped from the cache, a descriptor lives on until the reader that still holds it is done.
_descriptor = lru_cache(maxsize=MAX_OPEN_SHARDS)(_Descriptor)


def read_part(shard_path: Path | str, part: Part) -> bytes:
    """The bytes of one part, read at its offset; safe from threads and after a fork. DataError where they are gone."""
    try:
        content = os.pread(_descriptor(os.fspath(shard_path)).number, part.size, part.offset)
    except OSError as error:
        raise DataError(f"{shard_path} cannot be read: {error.strerror}") from error
    if len(content) != part.size:
        raise DataError(f"{shard_path} ends before byte {part.offset + part.size}; it was cut after it was indexed")
    return content
