"""The bytes of an index: one line of JSON, then a table that is read in one go, then the keys. No torch.

mmtrain-index/3
{"tar_bytes", "probes", "extensions", "num_samples", "has_sizes", "faults", "body_crc32"}
int64, little-endian, [extensions, samples, 2]: offset and size in the tar, ABSENT for none
where has_sizes: int32, little-endian, [samples, 2]: width and height of the image, NO_SIZE where it has none
the keys as a JSON list
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mmtrain.data.faults import DataError

FORMAT = "mmtrain-index/3"
ABSENT = -1  # offset and size of a part that a sample does not have
TAR_RECORD_BYTES = 2 * 10_240  # the last member's padding, the closing zeros and the rest of a record are shorter
NO_SIZE = (0, 0)  # of an image that is not there or cannot be measured
PREFERRED = {"image": ("jpg", "jpeg", "png", "webp"), "caption": ("txt",), "metadata": ("json",)}


@dataclass(frozen=True, eq=False)
class Sidecar:
    """What an index says of one tar."""

    tar_bytes: int  # size of the tar when it was indexed
    probes: str  # a digest of some of its headers
    columns: dict[str, np.ndarray]  # extension -> int64 [samples, 2]: offset and size, ABSENT for none
    num_samples: int
    faults: tuple[tuple[str, str], ...]  # key and reason
    keys_json: bytes
    sizes: np.ndarray | None  # int32 [samples, 2]: width and height in pixels, upright; None where nobody measured

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The samples' keys, in the order of the tar; DataError where they are not as many texts."""
        try:
            keys = json.loads(self.keys_json)
        except (ValueError, RecursionError) as error:
            raise DataError(f"the keys of an index are no JSON: {error}") from error
        if not (isinstance(keys, list) and len(keys) == self.num_samples and all(type(key) is str for key in keys)):
            raise DataError(f"an index of {self.num_samples} samples has other keys than as many texts")
        return tuple(keys)

    @property
    def num_lost(self) -> int:
        """Samples that damage of the tar has taken, estimated: bytes behind the last sample over the mean of one.

        0 without a fault; with faults at least one for each.
        """
        if not self.faults:
            return 0
        parts = [column[column[:, 0] != ABSENT] for column in self.columns.values()]
        last = max((int(part.sum(axis=1).max()) for part in parts if len(part)), default=0)
        spare = self.tar_bytes - last
        # A whole tar ends with zeros up to a multiple of TAR_RECORD_BYTES.
        unread = round(spare * self.num_samples / last) if spare > TAR_RECORD_BYTES and last else 0
        return max(unread, len(self.faults))

    def parts(self, kind: str) -> np.ndarray:
        """Offset and size of the preferred part of a kind (image, caption, metadata) per sample, int64 [samples, 2]."""
        found = np.full((self.num_samples, 2), ABSENT, np.int64)
        for extension in reversed(PREFERRED[kind]):
            if extension in self.columns:
                found = np.where(self.columns[extension] == ABSENT, found, self.columns[extension])
        return found


def encode(
    tar_bytes: int,
    probes: str,
    keys: Sequence[str],
    columns: dict[str, np.ndarray],
    faults: Sequence[tuple[str, str]],
    sizes: Sequence[tuple[int, int]] | None = None,
) -> bytes:
    """The bytes of an index; the same arguments give the same bytes."""
    body = b"".join(np.ascontiguousarray(column, "<i8").tobytes() for column in columns.values())
    if sizes is not None:
        body += np.array(sizes, "<i4").reshape(len(keys), 2).tobytes()
    body += json.dumps(list(keys), separators=(",", ":")).encode()
    head = {
        "tar_bytes": tar_bytes,
        "probes": probes,
        "extensions": list(columns),
        "num_samples": len(keys),
        "has_sizes": sizes is not None,
        "faults": [list(fault) for fault in faults],
        "body_crc32": zlib.crc32(body),
    }
    return f"{FORMAT}\n{json.dumps(head, separators=(',', ':'))}\n".encode() + body


def decode(content: bytes, name: str) -> Sidecar:
    """What the bytes of an index say; DataError naming `name` where they are damaged or of another format."""
    try:
        first, line, body = content.split(b"\n", 2)
        if first.decode() != FORMAT:
            raise DataError(f"{name} has format {first[:40]!r}, wanted {FORMAT!r}; `mmdata index` writes a new one")
        head = json.loads(line)
        if zlib.crc32(body) != head["body_crc32"]:
            raise ValueError("its checksum is another one")
        count, names = int(head["num_samples"]), head["extensions"]
        table = np.frombuffer(body, "<i8", 2 * count * len(names)).reshape(len(names), count, 2)
        faults = tuple((key, reason) for key, reason in head["faults"])
        _check_parts(table, head["tar_bytes"])
        columns = dict(zip(names, table, strict=True))
        sizes, keys = None, table.nbytes
        if head["has_sizes"]:
            sizes = np.frombuffer(body, "<i4", 2 * count, keys).reshape(count, 2)
            keys += sizes.nbytes
        return Sidecar(head["tar_bytes"], head["probes"], columns, count, faults, body[keys:], sizes)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{name} is not an index ({type(error).__name__}: {error})") from error


def _check_parts(table: np.ndarray, tar_bytes: int) -> None:
    """ValueError where a part, of int64 [extensions, samples, 2], would lie outside the tar."""
    if type(tar_bytes) is not int:
        raise TypeError(f"tar_bytes is {tar_bytes!r}")
    offsets, sizes = table[..., 0], table[..., 1]
    absent = (offsets == ABSENT) & (sizes == ABSENT)
    inside = (offsets >= 0) & (sizes >= 0) & (offsets <= tar_bytes) & (sizes <= tar_bytes - offsets)
    if not (absent | inside).all():
        raise ValueError("it has a part that lies outside the tar")
