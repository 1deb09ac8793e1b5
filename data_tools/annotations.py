"""Entries of annotation files in JSON: ids that match as text or as number, and entries that are none."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_tools.rows import type_name
from mmtrain.data.index import DataError
from mmtrain.io.documents import read_regular
from mmtrain.io.file_kinds import HEAD_BYTES, describe_bytes
from mmtrain.io.json_text import JsonError, lenient_json

LAYOUT = "wanted a file in the layout of COCO captions or VQA v2"
Entry = dict[str, Any]


def json_content(place: Path) -> Any:
    """What a .json file holds; DataError where it cannot be read."""
    try:
        content = read_regular(place)
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror}") from error
    try:
        return lenient_json(content)
    except JsonError as error:
        reason = str(error) if str(error).startswith("not JSON") else f"not JSON: {error}"
        raise DataError(f"{place} is {describe_bytes(content[:HEAD_BYTES]) or reason}") from error


def entries_of(content: Any, name: str, place: Path, needed: Sequence[str] = ()) -> list[Any]:
    """The list of that name, whose entries may yet be anything.

    DataError where there is no such list, or none of its entries is an object, or none has a field that is needed.
    """
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list) or (entries and not any(isinstance(entry, dict) for entry in entries)):
        raise DataError(f"{place} has no list {name!r}; {LAYOUT}")
    objects = [entry for entry in entries if isinstance(entry, dict)]
    for field in needed:
        if objects and not any(field in entry for entry in objects):
            raise DataError(f"{place} has an entry without {field!r}: {str(objects[0])[:100]}; {LAYOUT}")
    return entries


def id_of(value: Any) -> str | None:
    """What an id is compared by: 7, 7.0 and "7" are the same one; None where it is no id."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def by_id(entries: Sequence[Any], field: str) -> dict[str, list[int]]:
    """The numbers of the entries of each id, for entries that have one."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, entry in enumerate(entries):
        if isinstance(entry, dict) and (one := id_of(entry.get(field))) is not None:
            found[one].append(number)
    return found


def entry_fault(entry: Any, id_field: str) -> tuple[str, str]:
    """Why an entry cannot be used whatever else is in it, and in detail; two empty texts where it can."""
    if not isinstance(entry, dict):
        return "not a JSON object", type_name(entry)
    if id_of(entry.get(id_field)) is None:
        got = type_name(entry[id_field]) if id_field in entry else "missing"
        return "entry without a usable id", f"{id_field!r} is {got}; wanted a number or text"
    return "", ""


def repeated_ids(entries: Sequence[Any], field: str, same: Sequence[str]) -> Iterator[tuple[int, str, bool]]:
    """Entries that share their id with others: number, id, and whether it only repeats an earlier one.

    Entries with equal `same` fields are the same thing said twice: the first is kept and not among them. Of others
    nobody knows which is meant, so all are among them.
    """
    for one, numbers in by_id(entries, field).items():
        if len(numbers) > 1:
            kinds = [tuple(repr(entries[number].get(name)) for name in same) for number in numbers]
            is_repetition = len(set(kinds)) == 1
            for number in numbers[1:] if is_repetition else numbers:
                yield number, one, is_repetition
