"""Index of a checkpoint's tensors: which shard of which tensor lies where in which file, as plain JSON.

It takes the place of torch.distributed.checkpoint's own `.metadata`, which is a pickle: to read one is to run what it
says. Everything here is checked before it is used: names, shapes, bounds, and that the shards cover each tensor.
"""

import json
import os
import re
import stat
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader, Metadata
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.storage import WriteResult

from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.io.documents import DocumentError, read_json_object

TENSORS = "tensors"  # folder of a checkpoint in which its tensors lie
INDEX = "index.json"  # file in it
SHARD_FILE = re.compile(r"__\d{1,9}_\d{1,9}\.distcp")
MAX_DIMENSIONS = 16
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}


def encode_index(table: Metadata, written: Sequence[Sequence[WriteResult]]) -> str:
    """The index as JSON text, from the plan of all ranks and what each of them wrote."""
    places = {result.index: result.storage_data for rank in written for result in rank}
    tensors = {
        name: {
            "dtype": str(tensor.properties.dtype).removeprefix("torch."),
            "shape": list(tensor.size),
            "shards": [_encode_shard(chunk, places[MetadataIndex(name, chunk.offsets)]) for chunk in tensor.chunks],
        }
        for name, tensor in table.state_dict_metadata.items()
    }
    return json.dumps({"tensors": tensors}, separators=(",", ":"))


def _encode_shard(chunk: ChunkStorageMetadata, place: _StorageInfo) -> dict[str, Any]:
    return {
        "offset": list(chunk.offsets),
        "shape": list(chunk.sizes),
        "file": place.relative_path,
        "start": place.offset,
        "bytes": place.length,
    }


class IndexedReader(FileSystemReader):
    """torch's reader of tensor files with the index above in place of the pickle; tensors load with weights_only."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index as torch's planners want it; CheckpointError where it is malformed."""
        metadata = read_index(Path(self.path))
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata


def read_index(folder: Path) -> Metadata:
    """The index of the tensors in `folder`, checked; CheckpointError where it is missing or malformed."""
    try:
        tensors = read_json_object(folder / INDEX)["tensors"]
        sizes = {entry.name: _file_bytes(entry.path) for entry in os.scandir(folder) if SHARD_FILE.match(entry.name)}
        metadata = Metadata(state_dict_metadata={}, planner_data={}, storage_data={})
        for name, tensor in tensors.items():
            _add_tensor(metadata, name, tensor, sizes)
    except DocumentError as fault:
        raise CheckpointError(str(fault)) from None
    except OSError as fault:
        raise CheckpointError(f"{folder / INDEX} cannot be read ({fault.strerror})") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as fault:
        raise CheckpointError(f"{folder / INDEX} is malformed ({fault})") from None
    return metadata


def _file_bytes(path: str) -> int:
    """The size of a regular file; a link in a checkpoint is not followed."""
    kind = os.lstat(path)
    if not stat.S_ISREG(kind.st_mode):
        raise ValueError(f"{Path(path).name} is no regular file")
    return kind.st_size


def _add_tensor(metadata: Metadata, name: str, tensor: dict[str, Any], sizes: dict[str, int]) -> None:
    dtype, shape = DTYPES[tensor["dtype"]], _whole_numbers(tensor["shape"])
    chunks = []
    for shard in tensor["shards"]:
        offset, extent = _whole_numbers(shard["offset"]), _whole_numbers(shard["shape"])
        start, num_bytes = _whole_numbers([shard["start"], shard["bytes"]])
        if len(offset) != len(shape) or len(extent) != len(shape):
            raise ValueError(f"a shard of {name} has another number of dimensions")
        if any(low + size > whole for low, size, whole in zip(offset, extent, shape, strict=True)):
            raise ValueError(f"a shard of {name} reaches beyond the tensor")
        if shard["file"] not in sizes:
            raise ValueError(f"{name} is in {shard['file']!r}, which is no file of this checkpoint")
        if start + num_bytes > sizes[shard["file"]] or num_bytes < prod(extent) * dtype.itemsize:
            raise ValueError(f"a shard of {name} does not fit into its file")
        chunks.append(ChunkStorageMetadata(torch.Size(offset), torch.Size(extent)))
        place = MetadataIndex(name, torch.Size(offset), len(chunks) - 1)
        if place in metadata.storage_data:
            raise ValueError(f"two shards of {name} lie at {offset}")
        metadata.storage_data[place] = _StorageInfo(shard["file"], start, num_bytes)
    if sum(prod(chunk.sizes) for chunk in chunks) != prod(shape):
        raise ValueError(f"the shards of {name} do not cover it")
    properties = TensorProperties(dtype=dtype)
    metadata.state_dict_metadata[name] = TensorStorageMetadata(properties, torch.Size(shape), chunks)


def _whole_numbers(values: Any) -> list[int]:
    if not isinstance(values, list) or len(values) > MAX_DIMENSIONS:
        raise ValueError(f"{values!r:.60} is no list of sizes")
    if not all(type(value) is int and 0 <= value < 2**63 for value in values):
        raise ValueError(f"{values!r:.60} holds something else than whole numbers")
    return values
