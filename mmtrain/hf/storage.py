"""safetensors files, written tensor by tensor and read by rectangles: never more than one tensor in memory."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open

from mmtrain.io.command import naming
from mmtrain.io.documents import read_json_object
from mmtrain.io.errors import StorageError
from mmtrain.io.utf8_paths import utf8_path

WHOLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
MAX_FILE_BYTES = 5 * 10**9  # a larger model is spread over files, as Hugging Face's own are
TYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
MAX_INDEX_BYTES = 64 << 20
PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,250}")  # of a weight file: no folder, not hidden
HUB_BLOBS = "blobs"
ALIGNMENT = 8  # of the header's end, as the format asks

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class WeightFile:
    """One file to be written, and the tensors in it."""

    path: Path
    names: tuple[str, ...]


def write_weights(
    folder: Path,
    shapes: Shapes,
    dtype: torch.dtype,
    tensor_of: Callable[[str], torch.Tensor],
    *,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> int:
    """Write every tensor of `shapes` as `tensor_of(name)` gives it, one after another; returns the bytes of all."""
    files = _share_out(folder, shapes, dtype, max_file_bytes)
    for file in files:
        with naming(file.path), file.path.open("wb") as out:
            out.write(_header({name: shapes[name] for name in file.names}, dtype))
            for name in file.names:
                tensor = tensor_of(name).to(dtype).contiguous()
                if tuple(tensor.shape) != shapes[name]:
                    raise RuntimeError(f"{name} is {tuple(tensor.shape)}, not {shapes[name]}")
                out.write(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    num_bytes = sum(prod(shape) for shape in shapes.values()) * dtype.itemsize
    if len(files) > 1:
        places = {name: file.path.name for file in files for name in file.names}
        index = {"metadata": {"total_size": num_bytes}, "weight_map": places}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=1))
    return num_bytes


def _share_out(folder: Path, shapes: Shapes, dtype: torch.dtype, max_file_bytes: int) -> list[WeightFile]:
    """Tensors in order, a new file where one would grow too large."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        size = prod(shape) * dtype.itemsize
        if groups[-1] and filled + size > max_file_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    if len(groups) == 1:
        return [WeightFile(folder / WHOLE_FILE, tuple(groups[0]))]
    stem = WHOLE_FILE.removesuffix(".safetensors")
    return [
        WeightFile(folder / f"{stem}-{number:05d}-of-{len(groups):05d}.safetensors", tuple(names))
        for number, names in enumerate(groups, 1)
    ]


def _header(shapes: Shapes, dtype: torch.dtype) -> bytes:
    """The beginning of a safetensors file: the length of a JSON text, and the text, which says where tensors lie."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        end = start + prod(shape) * dtype.itemsize
        entries[name] = {"dtype": TYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


class WeightFolder:
    """The tensors of a folder of safetensors files, read where they lie.

    FileNotFoundError where there is none, StorageError where its index names files elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        places = read_weight_map(folder)
        if places is None:
            with utf8_path(weight_file(folder, WHOLE_FILE)) as path, safe_open(path, "pt") as file:
                places = dict.fromkeys(file.keys(), WHOLE_FILE)
        self._folder = folder
        self._files = {name: weight_file(folder, place) for name, place in places.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Whole shape of a tensor."""
        with utf8_path(self._file_of(name)) as path, safe_open(path, "pt") as file:
            return tuple(file.get_slice(name).get_shape())

    def read(self, name: str, index: Sequence[slice] | None = None) -> torch.Tensor:
        """A tensor, or the rectangle `index` of it; no more is read than that."""
        with utf8_path(self._file_of(name)) as path, safe_open(path, "pt") as file:
            return file.get_tensor(name) if index is None else file.get_slice(name)[tuple(index)]

    def _file_of(self, name: str) -> Path:
        if name not in self._files:
            raise StorageError(f"the weights in {self._folder} lack {name}")
        return self._files[name]


def read_weight_map(folder: Path) -> dict[str, str] | None:
    """Which file of the folder holds each tensor, as its index says; None where it has no index.

    StorageError where that is damaged, or names anything else than a file of the folder itself.
    """
    path = folder / INDEX_FILE
    if not path.exists():
        return None
    places = read_json_object(path, max_bytes=MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(places, dict) or not all(map(_is_plain_name, places.values())):
        raise StorageError(f"{path} names no weight files of its own folder in weight_map")
    return places


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and PLAIN_NAME.fullmatch(name) is not None


def weight_file(folder: Path, name: str) -> Path:
    """A file of the folder; StorageError where it is a link out of it.

    The cache of the Hugging Face hub is no such place: there files are links to `blobs` beside the snapshots.
    """
    path, own = folder / name, folder.resolve()
    real = path.resolve()
    if real.is_relative_to(own) or real.is_relative_to(own.parent.parent / HUB_BLOBS):
        return path
    raise StorageError(f"{path} is a link to a file outside its folder; copy that file there if you trust it")


def is_file_of(path: Path, sha256: str) -> bool:
    """Whether the file is there and has that checksum."""
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
