"""What each task asks of a run unless the run says otherwise: plain values that lie under a config. No torch."""

from collections.abc import Mapping
from typing import Any

Tree = dict[str, Any]

ONLY_LM = {"mlm": 0.0, "itc": 0.0, "itm": 0.0, "lm": 1.0}
PRESETS: dict[str, Tree] = {
    "caption": {"loss": ONLY_LM, "lm": {"label_smoothing": 0.1}, "task": {"num_beams": 3}},
    "vqa": {"loss": ONLY_LM, "task": {"max_new_tokens": 8, "shortlist": 128}},
    "retrieval": {"loss": {"mlm": 0.0, "itc": 1.0, "itm": 1.0, "lm": 0.0}},
}
# Over those of the task, where `task.answering` says so.
ANSWERING: dict[str, Tree] = {"choose": {"loss": {"lm": 0.0, "answer": 1.0}}}


def with_presets(given: Tree) -> Tree:
    """`given` laid over what its `task.name` presets."""
    name, answering = (_said_of_task(given, knob) for knob in ("name", "answering"))
    preset = laid_over(PRESETS.get(name, {}), ANSWERING.get(answering, {}) if name == "vqa" else {})
    return laid_over(preset, given)


def _said_of_task(given: Tree, knob: str) -> str:
    task = given.get("task")
    said = task.get(knob) if isinstance(task, Mapping) else getattr(task, knob, None)
    return said if isinstance(said, str) else ""


def laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """Both trees in one; where both say something, `over` holds."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = laid_over(merged[key], value) if both else value
    return merged
