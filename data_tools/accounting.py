"""Accounts of a build: every row and caption that was read is written or rejected, and the sums are checked."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from data_tools.records import Record
from data_tools.rows import UNUSABLE_QUESTION

ACCOUNTS = ("rows", "captions", "questions")


class AccountingError(Exception):
    """The program lost or invented a row or caption."""


@dataclass
class Account:
    """What was read, and what became of it."""

    read: int = 0
    written: int = 0
    rejected: int = 0
    repeated: int = 0  # equal to an earlier one of its sample, so written once

    def __str__(self) -> str:
        repeated = f" + {self.repeated} repeated" if self.repeated else ""
        return f"{self.written} kept + {self.rejected} rejected{repeated}"

    def check(self, what: str) -> None:
        """AccountingError where the sums differ."""
        if self.read != self.written + self.rejected + self.repeated:
            raise AccountingError(f"{what}: read {self.read}, but {self}; please report this")


@dataclass
class Accounts:
    """Rows, captions and questions of a build, and the samples that were made of them."""

    rows: Account = field(default_factory=Account)
    captions: Account = field(default_factory=Account)
    questions: Account = field(default_factory=Account)  # those of no image are rejected rows
    samples: int = 0

    def enter(self, record: Record, *, apart: bool) -> None:
        """Count one row, after all is decided about it; `apart`: a sample for each caption."""
        self.rows.read += 1
        self.captions.read += record.num_captions_read
        self.questions.read += record.num_questions_read
        if record.reason:
            self.rows.rejected += 1
            self.captions.rejected += record.num_captions_read
            self.questions.rejected += record.num_questions_read
            return
        self.rows.written += 1
        self.captions.written += len(record.captions)
        self.captions.repeated += record.num_captions_repeated
        self.captions.rejected += record.num_captions_lost
        self.questions.written += len((record.facts or {}).get("questions", ()))
        self.questions.rejected += sum(loss.reason == UNUSABLE_QUESTION for loss in record.losses)
        self.samples += max(1, len(record.captions)) if apart else 1

    def check(self, num_rows: int, num_samples: int) -> None:
        """AccountingError where rows of the input or samples of the shards are not accounted for."""
        self.rows.check("rows")
        self.captions.check("captions")
        self.questions.check("questions")
        if (self.rows.read, self.samples) != (num_rows, num_samples):
            raise AccountingError(
                f"{num_rows} rows of the input and {num_samples} samples in the shards, but {self.rows.read} rows and "
                f"{self.samples} samples were counted; please report this"
            )

    def record(self) -> dict[str, dict[str, int]]:
        """The sums for manifest.json."""
        return {name: asdict(getattr(self, name)) for name in ACCOUNTS}

    @classmethod
    def of(cls, statistics: Mapping[str, Any]) -> "Accounts":
        """Those that a manifest's statistics tell of."""
        return cls(**{name: Account(**statistics[name]) for name in ACCOUNTS})

    def __str__(self) -> str:
        told = [f"{self.rows.read} rows read = {self.rows}", f"{self.captions.read} captions = {self.captions}"]
        if self.questions.read:
            told.append(f"{self.questions.read} questions = {self.questions}")
        return "; ".join(told)
