"""The last held-out scores of runs, side by side: a run, or a folder of runs, is a column. Pure reading of logs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mmtrain.io.errors import InputError
from mmtrain.monitor.log import LINES, read_rows
from mmtrain.scores.units import is_number

PRIORS = ("constant_", "chance_")  # what a score is called that one gets without looking
Scores = dict[tuple[str, str], float]  # by the evaluation's name and the score's


@dataclass(frozen=True)
class Line:
    """One score of all columns; None where a column has not got it."""

    evaluation: str
    score: str
    prior: float | None
    values: tuple[float | None, ...]

    def record(self, columns: Sequence[str]) -> dict[str, Any]:
        """As one JSON object."""
        values = dict(zip(columns, self.values, strict=True))
        return {"evaluation": self.evaluation, "score": self.score, "prior": self.prior, "values": values}


def runs_of(place: Path) -> list[Path]:
    """A run folder itself, or the runs in a folder, by name; InputError where there is none."""
    found = [place] if (place / LINES).exists() else sorted(log.parent for log in place.glob(f"*/{LINES}"))
    if not found:
        raise InputError(f"{place} is no run and holds none: there is no {LINES} in it or in a folder of it")
    return found


def last_scores(run_dir: Path) -> Scores:
    """Every held-out score of a run as it was measured last."""
    return {
        (row["eval"], name): value
        for row in read_rows(run_dir)
        if "eval" in row
        for name, value in row.items()
        if name not in ("eval", "step") and is_number(value)
    }


def compared(columns: Sequence[Mapping[tuple[str, str], float]], patterns: Sequence[str]) -> list[Line]:
    """The scores that any pattern names (all without one), in the order of the first column; priors beside them."""
    names = dict.fromkeys(name for column in columns for name in column)
    lines = []
    for evaluation, score in names:
        is_wanted = not patterns or any(fnmatchcase(score, pattern) for pattern in patterns)
        if not is_wanted or score.startswith((*PRIORS, "num_")):
            continue
        priors = ((evaluation, f"{word}{score}") for word in PRIORS)
        prior = next((column[name] for name in priors for column in columns if name in column), None)
        values = tuple(column.get((evaluation, score)) for column in columns)
        lines.append(Line(evaluation, score, prior, values))
    return lines
