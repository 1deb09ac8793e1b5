"""What each task asks of a run unless the run says otherwise: plain values that lie under a config. No torch."""

from collections.abc import Mapping
from typing import Any

Tree = dict[str, Any]

ONLY_LM = {"mlm": 0.0, "itc": 0.0, "itm": 0.0, "lm": 1.0}
PRESETS: dict[str, Tree] = {
    "caption": {"loss": ONLY_LM, "lm": {"label_smoothing": 0.1}, "task": {"num_beams": 3}},
    "retrieval": {"loss": {"mlm": 0.0, "itc": 1.0, "itm": 1.0, "lm": 0.0}},
}


def with_presets(given: Tree) -> Tree:
    """`given` laid over what its `task.name` presets."""
    task = given.get("task")
    name = task.get("name") if isinstance(task, Mapping) else getattr(task, "name", None)
    return laid_over(PRESETS.get(name, {}) if isinstance(name, str) else {}, given)


def laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """Both trees in one; where both say something, `over` holds."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = laid_over(merged[key], value) if both else value
    return merged
