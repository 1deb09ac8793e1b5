"""Packs samples into shards: USTAR tars of which every byte follows from the samples, whole or not there at all."""

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data_tools.images import image_extension, upright_size
from mmtrain.data.index import ShardEntry, scan_shard, write_index
from mmtrain.data.sidecar import NO_SIZE
from mmtrain.io.atomic import atomic_open
from mmtrain.io.checksum import ChecksumWriter

SHARD_NAME = "{split}-{number:06d}.tar"
MANIFEST_NAME = "manifest.json"
LEFT_OUT_NAME = "left_out.jsonl"
TABLE_NAME = "samples.parquet"
WORK_NAME = ".work"  # holds an unfinished build
MODE = 0o644


@dataclass(frozen=True)
class Sample:
    """One WebDataset sample: files that share a key."""

    key: str
    files: dict[str, bytes]  # extension -> content, written in this order


def write_shard(path: Path, samples: Iterable[Sample]) -> ShardEntry:
    """Write the tar at `path` and its index; a crash leaves at most a name that starts with a dot."""
    sizes = []
    with atomic_open(path) as file:
        tar = ChecksumWriter(file)
        for sample in samples:
            for extension, content in sample.files.items():
                _append(tar, f"{sample.key}.{extension}", content)
            extension = image_extension(sample.files)
            sizes.append((extension and upright_size(sample.files[extension])) or NO_SIZE)
        # Two empty blocks end a tar; whole records of 20 blocks are what tar itself writes.
        tar.write(bytes(2 * tarfile.BLOCKSIZE))
        tar.write(bytes(-tar.num_bytes % tarfile.RECORDSIZE))
    write_index(scan_shard(path), sizes)
    return ShardEntry(path.name, len(sizes), tar.num_bytes, tar.sha256())


def shard_path(folder: Path, split: str, number: int) -> Path:
    """Where shard `number` of a split lies."""
    return folder / SHARD_NAME.format(split=split, number=number)


def _append(tar: ChecksumWriter, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)  # owner, group and time stay 0, so that two builds are the same bytes
    header.size, header.mode = len(content), MODE
    tar.write(header.tobuf(tarfile.USTAR_FORMAT))
    tar.write(content)
    tar.write(bytes(-len(content) % tarfile.BLOCKSIZE))
