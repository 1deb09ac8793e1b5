"""Samples that cannot be used: why, and how that is told."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from mmtrain.data.index import write_whole

MAX_EXAMPLES = 3  # per reason, in the table; the file names all


class Unusable(Exception):
    """This sample cannot be used."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason  # one of a few, to be counted
        self.detail = detail  # of this sample


@dataclass(frozen=True)
class LeftOut:
    """A sample that is in no shard."""

    source: str  # the image as the input names it, or the line where it names none
    key: str  # the key that it would have got
    reason: str
    detail: str = ""


def write_left_out(path: Path, left_out: Sequence[LeftOut]) -> Path:
    """One JSON object a line, in the order of the input; an empty file where nothing was left out."""
    lines = [json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in left_out]
    return write_whole(path, "".join(lines).encode("utf-8", "surrogateescape"))


def count_reasons(left_out: Sequence[LeftOut]) -> dict[str, int]:
    """How often each reason occurs, the most frequent first."""
    return dict(Counter(one.reason for one in left_out).most_common())


def reasons_table(left_out: Sequence[LeftOut]) -> Table:
    """What was left out, by reason, with examples."""
    table = Table("left out because of", "samples", "for example", title_justify="left")
    for reason, count in count_reasons(left_out).items():
        sources = [one.source for one in left_out if one.reason == reason]
        more = ", ..." if count > MAX_EXAMPLES else ""
        table.add_row(reason, str(count), ", ".join(sources[:MAX_EXAMPLES]) + more)
    return table
