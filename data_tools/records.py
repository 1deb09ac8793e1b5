"""What became of one row: kept with these captions and these bytes, or left out for this reason."""

import json
from dataclasses import dataclass, fields
from typing import Any

from data_tools.rows import Loss


@dataclass(frozen=True, slots=True)
class Record:
    """One row after its image was read; where `reason` is empty its bytes lie in the chunk's file of images."""

    number: int  # of the row
    source: str
    reason: str = ""
    detail: str = ""
    captions: tuple[str, ...] = ()
    facts: dict[str, Any] | None = None  # go on into the sample's .json
    extension: str = ""
    offset: int = 0  # in the file of images
    num_bytes: int = 0
    size: tuple[int, int] = (0, 0)  # width, height in pixels, as written
    original_size: tuple[int, int] = (0, 0)
    digest: str = ""  # sha256 of the bytes that came, hex
    image_id: str = ""  # of the bytes as written
    look: str = ""  # hex
    num_captions_read: int = 0  # of the input, those left out among them
    num_captions_repeated: int = 0  # equal to an earlier one of the row
    num_captions_lost: int = 0  # rejected, though the row stays
    num_questions_read: int = 0
    losses: tuple[Loss, ...] = ()  # captions and values left out though the row stays

    @property
    def key(self) -> str:
        """The sample's key."""
        return f"{self.number:08d}"


NAMES = tuple(one.name for one in fields(Record))


def to_line(record: Record) -> str:
    """One line of JSON; paths that are not UTF-8 and other strange text survive as escapes."""
    said = {name: getattr(record, name) for name in NAMES}
    return json.dumps(said | {"losses": [(loss.reason, loss.detail) for loss in record.losses]})


def from_line(line: str) -> Record:
    """The record of a line."""
    said = json.loads(line)
    for name in ("captions", "size", "original_size"):
        said[name] = tuple(said[name])
    said["losses"] = tuple(Loss(*loss) for loss in said["losses"])
    return Record(**said)
