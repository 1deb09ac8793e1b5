"""From picked records to the files of samples, and the shard that holds them; runs in a worker process."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_tools.pack import Sample, shard_path, write_shard
from data_tools.selection import Pick
from data_tools.workshop import Workshop
from mmtrain.data.ids import name_of_caption
from mmtrain.io.json_text import strict_dumps
from mmtrain.io.text import encodable

SPLIT = "shard"  # what the tars are called


@dataclass(frozen=True)
class ShardTask:
    """One shard to write."""

    number: int
    picks: tuple[Pick, ...]


def pack_shard(task: ShardTask, folder: Path, work: Path) -> int:
    """Write the shard with its index, note that it is finished, and return its number."""
    workshop, path = Workshop(work), shard_path(folder, SPLIT, task.number)
    workshop.write_entry(task.number, write_shard(path, _samples(task, workshop)))
    return task.number


def sample_of(pick: Pick, image: bytes) -> Sample:
    """The files of one sample: the image, KEY.txt with the first caption, KEY.json with ids, source and sizes.

    Where there is no caption, neither is a KEY.txt.
    """
    record, text = pick.record, [("txt", caption.encode()) for caption in pick.captions[:1]]
    # What an earlier build said of the source stays; the table tells from which shard a sample was cut.
    facts = {"source": encodable(record.source), "original_size": record.original_size} | (record.facts or {})
    facts["image_id"] = record.image_id
    if pick.captions:
        facts["caption_id"] = name_of_caption(pick.captions[0])
    facts["size"] = record.size
    if len(pick.captions) > 1:
        facts["captions"] = pick.captions
    return Sample(pick.key, {record.extension: image, **dict(text), "json": strict_dumps(facts).encode()})


def _samples(task: ShardTask, workshop: Workshop) -> Iterator[Sample]:
    files = {chunk: os.open(workshop.images_path(chunk), os.O_RDONLY) for chunk in {pick.chunk for pick in task.picks}}
    try:
        for pick in task.picks:
            image = os.pread(files[pick.chunk], pick.record.num_bytes, pick.record.offset)
            if len(image) != pick.record.num_bytes:
                raise RuntimeError(f"chunk {pick.chunk} lost bytes of {pick.key}")
            yield sample_of(pick, image)
    finally:
        for file in files.values():
            os.close(file)
