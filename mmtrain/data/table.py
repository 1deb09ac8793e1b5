"""All samples of a set by number, a few words of memory each: readers of millions of samples share them."""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmtrain.data.faults import DataError, Fault
from mmtrain.data.index import Part, ShardIndex, open_index, read_part

# In order of preference, where a sample has several.
EXTENSIONS = {"image": ("jpg", "jpeg", "png", "webp"), "caption": ("txt",), "metadata": ("json",)}
ABSENT = -1


class SampleError(Exception):
    """A sample cannot be used; the message says why."""


class SampleTable:
    """Where image, caption and metadata of each sample lie; samples are numbered through all shards."""

    def __init__(self, indexes: Sequence[ShardIndex]) -> None:
        self.paths = [index.path for index in indexes]
        self.faults = [fault for index in indexes for fault in index.faults]
        counts = [len(index.keys) for index in indexes]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._parts = {
            kind: np.concatenate([_column(index, extensions) for index in indexes])
            for kind, extensions in EXTENSIONS.items()
        }
        self.digest = self._digest(counts)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _digest(self, counts: Sequence[int]) -> str:
        """Tells sets apart: another set, or the same in other shards, gives another one."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps([(path.name, count) for path, count in zip(self.paths, counts, strict=True)]).encode())
        for kind in EXTENSIONS:
            digest.update(self._parts[kind].tobytes())
        return digest.hexdigest()

    def read(self, sample: int, kind: str) -> bytes | None:
        """The bytes of one part of a sample, None where it has none; SampleError where they cannot be read."""
        offset, size = self._parts[kind][sample].tolist()
        if offset == ABSENT:
            return None
        try:
            return read_part(self.paths[self._shard(sample)], Part(offset, size))
        except DataError as error:
            raise SampleError(str(error)) from error

    def caption(self, sample: int) -> str:
        """The caption of a sample, stripped; SampleError where there is none."""
        content = self.read(sample, "caption")
        if content is None:
            raise SampleError("has no caption (a .txt file)")
        try:
            text = content.decode().strip()
        except UnicodeDecodeError as error:
            raise SampleError("its caption is not UTF-8") from error
        if not text:
            raise SampleError("its caption is empty")
        return text

    def image(self, sample: int) -> bytes:
        """The image file of a sample; SampleError where there is none."""
        content = self.read(sample, "image")
        if not content:
            missing = content is None
            raise SampleError("has no image (a .jpg, .jpeg, .png or .webp file)" if missing else "its image is empty")
        return content

    def metadata(self, sample: int) -> dict:
        """What the sample's .json says, empty where there is none; SampleError where it is not JSON."""
        content = self.read(sample, "metadata")
        try:
            said = json.loads(content) if content else {}
        except ValueError as error:
            raise SampleError(f"its .json is not JSON ({error})") from error
        return said if isinstance(said, dict) else {}

    def fault(self, sample: int, reason: str) -> Fault:
        """A fault that names the sample."""
        shard = self._shard(sample)
        return Fault(self.paths[shard].name, _keys(self.paths[shard])[sample - self._starts[shard]], reason)

    def _shard(self, sample: int) -> int:
        return int(np.searchsorted(self._starts, sample, side="right")) - 1


def _column(index: ShardIndex, extensions: Sequence[str]) -> np.ndarray:
    """Offset and size of one kind of part for each sample of a shard, int64 [samples, 2]."""
    pairs = np.full((len(index.keys), 2), ABSENT, np.int64)
    for number, parts in enumerate(index.parts):
        part = next((parts[extension] for extension in extensions if extension in parts), None)
        if part:
            pairs[number] = part.offset, part.size
    return pairs


# Keys are text and many, and only faults name them: they are read again when one does.
@lru_cache(maxsize=8)
def _keys(path: Path) -> tuple[str, ...]:
    return open_index(path).keys
