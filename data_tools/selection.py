"""Decides, row after row in one fixed order, what is kept and in which shard; nothing is read or written here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from data_tools.duplicates import SeenImages
from data_tools.records import Record

TAR_BLOCK_BYTES = 512
JSON_BYTES = 512  # about, of a sample's .json without what was carried on
DUPLICATE, NEAR_DUPLICATE = "same image as another", "looks like another image"


@dataclass(frozen=True)
class CutRules:
    """How samples are cut into shards."""

    samples_per_shard: int | None = 1000
    bytes_per_shard: int | None = None  # at most, about; whichever limit comes first
    apart: bool = False  # a sample per caption; else one per image, with all captions in its .json
    dedup: str = "none"  # "exact": images of the same bytes; "near": also those that look the same
    near_bits: int = 6  # of 128 in which the looks of copies may differ


@dataclass(frozen=True)
class Pick:
    """One sample of a shard."""

    key: str
    chunk: int  # that holds the image
    record: Record
    captions: tuple[str, ...]  # the first one is the sample's text; none where only questions are asked of an image


@dataclass(frozen=True)
class Decision:
    """What became of a row: in the shard of this number, or left out for the record's reason."""

    record: Record
    shard: int | None


@dataclass
class Selection:
    """Takes records in order and hands out full shards."""

    rules: CutRules
    seen: SeenImages
    num_shards: int = 0  # handed out so far
    num_samples: int = 0
    _held: list[Pick] = field(default_factory=list)
    _held_bytes: int = 0

    def take(self, chunk: int, records: Sequence[Record]) -> Iterator[Decision | list[Pick]]:
        """Decide about the records of the next chunk; shards come out where they are full."""
        for record in records:
            decided = self._judge(record)
            if decided.reason:
                yield Decision(decided, None)
                continue
            for pick in self._picks(chunk, decided):
                if self._held and self._is_full(_tar_bytes(pick)):
                    yield self._hand_out()
                self._held.append(pick)
                self._held_bytes += _tar_bytes(pick)
            yield Decision(decided, self.num_shards)

    def rest(self) -> Iterator[list[Pick]]:
        """The last shard, where any sample is left."""
        if self._held:
            yield self._hand_out()

    def held_chunks(self) -> set[int]:
        """Chunks whose images the shard needs that is not full yet."""
        return {pick.chunk for pick in self._held}

    def _judge(self, record: Record) -> Record:
        if record.reason or self.rules.dedup == "none":
            return record
        digest, look = bytes.fromhex(record.digest), bytes.fromhex(record.look) or None
        if seen := self.seen.find(digest, look):
            reason = DUPLICATE if seen.num_bits is None else NEAR_DUPLICATE
            detail = seen.name if seen.num_bits is None else f"{seen.name}, {seen.num_bits} bits differ"
            return replace(record, reason=reason, detail=detail)
        self.seen.add(digest, look, record.key)
        return record

    def _picks(self, chunk: int, record: Record) -> Iterator[Pick]:
        if not self.rules.apart or len(record.captions) <= 1:
            yield Pick(record.key, chunk, record, record.captions)
            return
        for number, caption in enumerate(record.captions):
            yield Pick(f"{record.key}-{number}", chunk, record, (caption,))

    def _is_full(self, more_bytes: int) -> bool:
        by_count = self.rules.samples_per_shard is not None and len(self._held) >= self.rules.samples_per_shard
        by_bytes = self.rules.bytes_per_shard is not None and self._held_bytes + more_bytes > self.rules.bytes_per_shard
        return by_count or by_bytes

    def _hand_out(self) -> list[Pick]:
        full, self._held, self._held_bytes = self._held, [], 0
        self.num_shards += 1
        self.num_samples += len(full)
        return full


def _tar_bytes(pick: Pick) -> int:
    """About what the sample takes in a tar; a pure function of what is known here."""
    lengths = [len(caption.encode()) for caption in pick.captions]
    sizes = pick.record.num_bytes, sum(lengths[:1]), JSON_BYTES + sum(lengths)
    return sum(TAR_BLOCK_BYTES * (1 - (-size // TAR_BLOCK_BYTES)) for size in sizes)
