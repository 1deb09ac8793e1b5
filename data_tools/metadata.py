"""Metadata on its way into a shard's KEY.json: strict JSON, questions in their schema, no name with two meanings."""

import re
from typing import Any

from data_tools.fetch import FetchRules, fetch
from data_tools.left_out import Unusable
from data_tools.rows import UNUSABLE_QUESTION, Loss, Place, Row, type_name
from data_tools.texts import clean_text
from mmtrain.data.question_schema import parse_questions
from mmtrain.io.json_text import MAX_JSON_BYTES, MAX_JSON_DEPTH, JsonError, json_fault, lenient_json

MAX_FACTS_BYTES = MAX_JSON_BYTES  # of a .json
NO_VALUE = "value is no JSON"
# What `mmdata build` derives or writes itself; a set of other make has it kept under "input_NAME".
DERIVED = ("image_id", "caption_id", "size")
WRITTEN = ("source", "original_size")
OWN_ID = re.compile("[0-9a-f]{16}")


def read_facts(row: Row, rules: FetchRules, losses: list[Loss]) -> dict[str, Any] | None:
    """What goes on into the sample's .json; what cannot is added to `losses`."""
    said = row.facts if row.facts is None or isinstance(row.facts, dict) else object_at(row.facts, rules)
    if not said:
        return None
    facts = _cleaned(said, "", losses)
    if not isinstance(row.facts, dict):
        facts = _renamed(facts)
    if "questions" in facts:
        facts["questions"] = _sound_questions(facts.pop("questions"), losses)
        if not facts["questions"]:
            del facts["questions"]
    return facts


def _renamed(facts: dict[str, Any]) -> dict[str, Any]:
    """The .json of a sample without what is derived anew; values of other makers' under such a name get another."""
    own = {name for name in DERIVED if isinstance(one := facts.get(name), str) and OWN_ID.fullmatch(one)}
    if len(own) == 2 or ("image_id" in own and {"source", "size"} <= facts.keys()):
        return {name: value for name, value in facts.items() if name not in DERIVED}
    return {f"input_{name}" if name in DERIVED + WRITTEN else name: value for name, value in facts.items()}


def _sound_questions(asked: Any, losses: list[Loss]) -> list[Any]:
    if not isinstance(asked, list):
        losses.append(Loss(UNUSABLE_QUESTION, f"questions: {type_name(asked)}"))
        return []
    sound = []
    for number, one in enumerate(asked):
        faults: list[str] = []
        if parse_questions({"questions": [one]}, strict=False, faults=faults):
            sound.append(one)
        losses += [Loss(UNUSABLE_QUESTION, f"question {number}: {fault}") for fault in faults]
    return sound


def object_at(place: Place, rules: FetchRules) -> dict[str, Any]:
    """The object in a .json; Unusable where there is none."""
    try:
        said = lenient_json(fetch(place, rules, MAX_FACTS_BYTES), unique_names=True)
    except (Unusable, JsonError) as error:
        raise Unusable("broken .json", reason_of(error)) from error
    if not isinstance(said, dict):
        raise Unusable("broken .json", "not an object")
    return said


def _cleaned(said: Any, place: str, losses: list[Loss], depth: int = 0) -> Any:
    """Texts without control signs; null where JSON cannot hold a value: NaN, infinity, half an emoji."""
    if isinstance(said, list | dict) and depth >= MAX_JSON_DEPTH:
        raise Unusable("broken .json", f"more than {MAX_JSON_DEPTH} levels deep")
    if isinstance(said, list):
        return [_cleaned(one, f"{place}[{number}]", losses, depth + 1) for number, one in enumerate(said)]
    if isinstance(said, dict):
        found: dict[str, Any] = {}
        for name, one in said.items():
            clean = clean_text(name)
            if json_fault(name) or clean in found:
                losses.append(Loss(NO_VALUE, f"the name {ascii(name)[1:-1]}{' at ' * bool(place)}{place}"))
            else:
                found[clean] = _cleaned(one, f"{place}.{clean}".lstrip("."), losses, depth + 1)
        return found
    if fault := json_fault(said):
        losses.append(Loss(NO_VALUE, f"{place}: {fault.removesuffix(' at the top')}"))
        return None
    return clean_text(said) if isinstance(said, str) else said


def reason_of(error: Exception) -> str:
    """Why something could not be read, in one line."""
    return ": ".join(part for part in error.args if part) if isinstance(error, Unusable) else str(error)
