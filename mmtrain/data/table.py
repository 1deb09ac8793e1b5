"""All samples of a set by number; of the shards' indexes only the last used are held, however many there are."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from mmtrain.data.faults import DataError, Fault, SampleError
from mmtrain.data.index import Part
from mmtrain.data.places import Access
from mmtrain.data.shards import UNKNOWN_BYTES, Shards, refuse_replaced
from mmtrain.data.sidecar import ABSENT, PREFERRED
from mmtrain.io.json_text import JsonError, strict_json
from mmtrain.io.urls import is_remote

KINDS = tuple(PREFERRED)
MAX_OPEN_INDEXES = 256  # at 48 bytes a sample: 12 MB for shards of 1,000; four windows of the usual order
MAX_GAP_BYTES = 2**16  # between two parts of a sample that are still read in one go
Content = bytes | memoryview


class SampleTable:
    """Where image, caption and metadata of each sample lie; samples are numbered through all shards."""

    def __init__(self, shards: Shards, access: Access) -> None:
        self.shards, self._access = shards, access
        self._open: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return self.shards.num_samples

    @property
    def digest(self) -> str:
        """Tells sets apart."""
        return self.shards.digest

    @property
    def faults(self) -> Sequence[Fault]:
        """What counting the samples found of damage."""
        return self.shards.faults

    def contents(self, sample: int, kinds: Sequence[str] = KINDS) -> dict[str, Content | None]:
        """The bytes of the parts of a sample, None for those it has not; SampleError where they cannot be read."""
        shard = self._shard(sample)
        location = self.shards.locations[shard]
        try:
            row = self._row(shard, sample)
            return self._read(location, {kind: row[KINDS.index(kind)] for kind in kinds})
        except DataError as error:
            raise SampleError(str(error)) from error

    def _read(self, location: str, wanted: dict[str, list[int]]) -> dict[str, Content | None]:
        there = {kind: place for kind, place in wanted.items() if place[0] != ABSENT}
        found: dict[str, Content | None] = dict.fromkeys(wanted)
        if not there:
            return found
        start = min(offset for offset, _ in there.values())
        stop = max(offset + size for offset, size in there.values())
        if stop - start > sum(size for _, size in there.values()) + MAX_GAP_BYTES:
            return found | {kind: self._access.read(location, Part(*place)) for kind, place in there.items()}
        run = memoryview(self._access.read(location, Part(start, stop - start)))
        return found | {kind: run[offset - start : offset - start + size] for kind, (offset, size) in there.items()}

    def caption(self, sample: int) -> str:
        """The caption of a sample, stripped; SampleError where there is none."""
        return as_caption(self.contents(sample, ("caption",))["caption"])

    def metadata(self, sample: int) -> dict:
        """What the sample's .json says, empty where there is none; SampleError where it is not JSON."""
        return as_metadata(self.contents(sample, ("metadata",))["metadata"])

    def sizes(self) -> np.ndarray:
        """Width and height of every sample's image, int32 [samples, 2]; DataError where an index does not know."""
        found = []
        for shard, location in enumerate(self.shards.locations):
            sizes = self._access.sidecar(location).sizes
            if sizes is None:
                raise DataError(
                    f"{self.shards.name(shard)} has no index that knows the sizes of its images, which data.max_aspect "
                    "asks for; `mmdata index SHARDS --overwrite` writes one"
                )
            found.append(sizes)
        return np.concatenate(found)

    def fault(self, sample: int, reason: str) -> Fault:
        """A fault that names the sample."""
        return Fault(*self.name(sample), reason)

    def name(self, sample: int) -> tuple[str, str]:
        """File name of the shard and key of a sample; an empty key where the shard's index cannot be had."""
        shard = self._shard(sample)
        try:
            keys = self._access.sidecar(self.shards.locations[shard]).keys
            return self.shards.name(shard), keys[sample - int(self.shards.starts[shard])]
        except (DataError, IndexError):
            return self.shards.name(shard), ""

    def _shard(self, sample: int) -> int:
        return int(self.shards.starts.searchsorted(sample, "right")) - 1

    def _row(self, shard: int, sample: int) -> list[list[int]]:
        """Offset and size of each kind of part of a sample."""
        if shard in self._open:
            self._open.move_to_end(shard)
        else:
            while len(self._open) >= MAX_OPEN_INDEXES:
                self._open.popitem(last=False)
            self._open[shard] = self._columns(shard)
        return self._open[shard][sample - int(self.shards.starts[shard])].tolist()

    def _columns(self, shard: int) -> np.ndarray:
        location, expected = self.shards.locations[shard], int(self.shards.tar_bytes[shard])
        if expected != UNKNOWN_BYTES and not is_remote(location):
            refuse_replaced(location, expected)
        sidecar = self._access.sidecar(location)
        count = int(self.shards.starts[shard + 1] - self.shards.starts[shard])
        if sidecar.num_samples != count:
            raise DataError(f"{location} holds {sidecar.num_samples} samples, not the {count} that it was listed with")
        return np.stack([sidecar.parts(kind) for kind in KINDS], axis=1)


def as_caption(content: Content | None) -> str:
    """A caption, stripped; SampleError where it cannot be used."""
    if content is None:
        raise SampleError("has no caption (.txt behind the first dot of the name)")
    try:
        text = str(content, "utf-8").strip()
    except UnicodeDecodeError as error:
        raise SampleError("its caption is not UTF-8") from error
    if not text:
        raise SampleError("its caption is empty")
    return text


def as_captions(said: dict) -> list[str]:
    """All captions of a sample that has several, stripped, without empty ones; none where its .json names none.

    SampleError where "captions" is not a list of texts: a null or a number is never read as a word.
    """
    captions = said.get("captions", [])
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise SampleError('its .json has "captions" that are no list of texts')
    return [stripped for caption in captions if (stripped := caption.strip())]


def as_image(content: Content | None) -> Content:
    """An image file; SampleError where there is none."""
    if not content:
        missing = content is None
        raise SampleError(
            "has no image (.jpg, .jpeg, .png or .webp behind the first dot of the name)"
            if missing
            else "its image is empty"
        )
    return content


def as_metadata(content: Content | None) -> dict:
    """What a .json file says, empty where there is none; SampleError where it is no JSON, too deep or not Unicode.

    NaN is accepted: img2dataset writes it into KEY.json for numbers that it lacks.
    """
    try:
        said = strict_json(content, allow_nan=True) if content else {}
    except JsonError as error:
        raise SampleError(f"its .json cannot be used: {error}") from error
    return said if isinstance(said, dict) else {}
