"""Samples that cannot be used: why, and how that is told."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field

from mmtrain.io.text import printable

MAX_EXAMPLES = 3  # per reason, in the table; the file names all


class Unusable(Exception):
    """This sample cannot be used."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason  # one of a few, to be counted
        self.detail = detail  # of this sample


@dataclass(frozen=True)
class LeftOut:
    """A sample that is in no shard, or a caption or value that is in no sample."""

    source: str  # the image as the input names it, or the line where it names none
    key: str  # the key that it would have got
    reason: str
    detail: str = ""
    kept: bool = False  # whether the sample itself is in a shard

    def line(self) -> bytes:
        """One line of left_out.jsonl, which is UTF-8 always.

        The bytes of a name that is not UTF-8 are the escapes \\udcNN, which json.loads makes Python's name of it.
        """
        return (json.dumps(asdict(self), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


@dataclass
class Tally:
    """How often each reason occurred, with the first examples."""

    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    first: LeftOut | None = None

    def add(self, one: LeftOut) -> None:
        """Count one more."""
        self.first = self.first or one
        self.reasons[one.reason] += 1
        examples = self.examples.setdefault(one.reason, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(printable(one.source))

    def counts(self) -> dict[str, int]:
        """Reasons with their counts, the most frequent first."""
        return dict(self.reasons.most_common())

    def __len__(self) -> int:
        return self.reasons.total()
