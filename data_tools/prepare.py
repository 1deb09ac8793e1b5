"""Reads, checks and shrinks the images of one chunk of rows, and cleans their captions; runs in a worker process."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from data_tools.fetch import FetchRules, fetch
from data_tools.images import ImageRules, prepare_image
from data_tools.left_out import Unusable
from data_tools.records import Record
from data_tools.rows import Inside, Place, Row, is_remote
from data_tools.texts import CaptionRules, check_caption, clean_text
from data_tools.workshop import Workshop

MAX_TEXT_BYTES = 1 << 20  # of a file with a caption
MAX_FACTS_BYTES = 16 << 20  # of a .json
MAX_FACT_DEPTH = 16  # lists and objects in each other
NO_CAPTION = "missing caption"
WAITING_PER_THREAD = 4


@dataclass(frozen=True)
class ChunkTask:
    """Some rows to prepare."""

    number: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Preparation:
    """How rows are prepared, and where the result goes."""

    workshop: Path
    images: ImageRules
    captions: CaptionRules
    fetch: FetchRules


@dataclass(frozen=True)
class Gathered:
    """What a row names."""

    captions: "Captions"
    facts: dict[str, Any] | None
    image: bytes


class Captions(NamedTuple):
    """Those of a row that may stay, and why the others may not."""

    kept: tuple[str, ...]
    detail: str = ""


def prepare_chunk(task: ChunkTask, how: Preparation) -> int:
    """Write the chunk's images and records into the workshop; returns its number.

    Images are written as they come, records in the order of the rows.
    """
    workshop, records = Workshop(how.workshop), {}
    with workshop.new_images(task.number) as images:
        for row, found in _gathered(task.rows, how):
            records[row.number] = _prepare_row(row, found, how.images, images)
    workshop.write_records(task.number, [records[row.number] for row in task.rows])
    return task.number


def read_captions(captions: Sequence[str | Place], rules: CaptionRules, fetch_rules: FetchRules) -> Captions:
    """The captions cleaned and sorted; Unusable, with the first one's fault, where none may stay."""
    faults: list[Unusable] = []
    kept: list[str] = []
    for given in captions:
        try:
            caption = _clean(given if isinstance(given, str) else _text_at(given, fetch_rules))
            check_caption(caption, rules)
            kept.append(caption)
        except Unusable as error:
            faults.append(error)
    if not kept:
        raise faults[0] if faults else Unusable(NO_CAPTION)
    reasons = ", ".join(dict.fromkeys(fault.reason for fault in faults))
    detail = f"{len(faults)} of {len(captions)} captions left out: {reasons}" if faults else ""
    return Captions(tuple(dict.fromkeys(kept)), detail)


def _gathered(rows: Sequence[Row], how: Preparation) -> Iterator[tuple[Row, Gathered | Unusable]]:
    """Rows with what they name: remote ones as they arrive, many at once, the others in their order."""
    yield from ((row, _gather(row, how)) for row in rows if not is_remote(row.image))
    remote = [row for row in rows if is_remote(row.image)]
    if not remote:
        return
    with ThreadPoolExecutor(how.fetch.threads) as pool:
        # A few at a time: what has arrived waits for its turn in memory.
        step = WAITING_PER_THREAD * how.fetch.threads
        for first in range(0, len(remote), step):
            waiting = {pool.submit(_gather, row, how): row for row in remote[first : first + step]}
            for future in as_completed(waiting):
                yield waiting.pop(future), future.result()


def _gather(row: Row, how: Preparation) -> Gathered | Unusable:
    try:
        if row.fault:
            raise Unusable(row.fault, row.detail)
        facts = _facts(row, how.fetch)
        captions = _captions(row, facts, how)
        if row.image is None:
            raise Unusable("missing image")
        return Gathered(captions, facts, fetch(row.image, how.fetch))  # last, for it costs most
    except Unusable as error:
        return error


def _captions(row: Row, facts: dict[str, Any] | None, how: Preparation) -> Captions:
    """Those that may stay; an image about which questions are asked needs none."""
    try:
        return read_captions((*row.captions, *_further_captions(row, facts)), how.captions, how.fetch)
    except Unusable as fault:
        if fault.reason != NO_CAPTION or not (facts and facts.get("questions")):
            raise
        return Captions(())


def _prepare_row(row: Row, found: Gathered | Unusable, rules: ImageRules, out: BinaryIO) -> Record:
    try:
        if isinstance(found, Unusable):
            raise found
        prepared = prepare_image(found.image, rules)
    except Unusable as error:
        return Record(row.number, row.source, error.reason, error.detail)
    offset = out.tell()
    out.write(prepared.content)
    return Record(
        number=row.number,
        source=row.source,
        detail=found.captions.detail,
        captions=found.captions.kept,
        facts=found.facts,
        extension=prepared.extension,
        offset=offset,
        num_bytes=len(prepared.content),
        size=prepared.size,
        original_size=prepared.original_size,
        digest=hashlib.sha256(found.image).hexdigest(),
        image_id=hashlib.blake2b(prepared.content, digest_size=8).hexdigest(),
        look=prepared.look.hex() if prepared.look else "",
    )


def _clean(text: str) -> str:
    caption = clean_text(text)
    if not caption:
        raise Unusable(NO_CAPTION)
    try:
        caption.encode()
    except UnicodeEncodeError as error:
        raise Unusable("caption is not text", error.reason) from error
    return caption


def _text_at(place: Place, rules: FetchRules) -> str:
    if isinstance(place, Inside) and place.field:
        said = _object_at(place, rules).get(place.field)
        if said is not None and not isinstance(said, str):
            raise Unusable("caption is not text", f"{place.field!r} of the .json")
        return said or ""
    try:
        return fetch(place, rules, MAX_TEXT_BYTES).decode("utf-8-sig")
    except (Unusable, UnicodeDecodeError) as error:
        raise Unusable("caption cannot be read", _why(error)) from error


def _facts(row: Row, rules: FetchRules) -> dict[str, Any] | None:
    said = row.facts if row.facts is None or isinstance(row.facts, dict) else _object_at(row.facts, rules)
    return _cleaned(said) if said else None


def _further_captions(row: Row, facts: dict[str, Any] | None) -> list[str]:
    """Taken out of the facts of a shard's sample: the captions that `mmdata build` puts there beside the first one."""
    said = facts.get("captions") if facts and isinstance(row.facts, Inside) else None
    if facts and isinstance(said, list) and all(isinstance(caption, str) for caption in said):
        return facts.pop("captions")
    return []


def _object_at(place: Place, rules: FetchRules) -> dict[str, Any]:
    try:
        said = json.loads(fetch(place, rules, MAX_FACTS_BYTES))
    except (Unusable, ValueError, RecursionError) as error:
        raise Unusable("broken .json", _why(error)) from error
    if not isinstance(said, dict):
        raise Unusable("broken .json", "not an object")
    return said


def _cleaned(said: Any, depth: int = 0) -> Any:
    """Texts without control signs, whole objects otherwise as they are."""
    if depth > MAX_FACT_DEPTH:
        raise Unusable("broken .json", f"more than {MAX_FACT_DEPTH} levels deep")
    if isinstance(said, str):
        return clean_text(said)
    if isinstance(said, list):
        return [_cleaned(one, depth + 1) for one in said]
    if isinstance(said, dict):
        return {clean_text(name): _cleaned(one, depth + 1) for name, one in said.items()}
    return said


def _why(error: Exception) -> str:
    return ": ".join(part for part in error.args if part) if isinstance(error, Unusable) else str(error)
