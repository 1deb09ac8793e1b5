"""The unit of each score, and how a score is shown: the same in tables of runs, in comparisons and in model cards."""

import re
from enum import Enum
from math import isfinite

NO_NUMBER = "no number"
MAX_INTEGER = 2**63  # larger ones are no counts, and no float holds them
# Fractions of 1 by name; a kind of question or of foil may follow, as in itm_accuracy_color.
_FRACTION = re.compile(r"accuracy|recall_at_\d|_right$|(^|_)bleu_\d|(^|_)rouge_l")


class Unit(Enum):
    """What a score counts in."""

    PERCENT = "percent"  # a fraction of 1, shown in percent
    COUNT = "count"
    PLAIN = "plain"  # on a scale of its own: perplexity, CIDEr (from 0 to 10), words


def unit_of(score: str) -> Unit:
    """The unit of a score by its name."""
    if score.startswith("num_"):
        return Unit.COUNT
    return Unit.PERCENT if _FRACTION.search(score) else Unit.PLAIN


def is_number(value: object) -> bool:
    """Whether a value of a log is a finite number: null stands for what was none, and anyone can write text there."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= MAX_INTEGER
    return isinstance(value, float) and isfinite(value)


def format_score(score: str, value: object) -> str:
    """A score for people's eyes; what is no finite number is said to be none."""
    if not is_number(value):
        return NO_NUMBER
    if unit_of(score) is Unit.PERCENT:
        return f"{value:.1%}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
