"""Reads, checks and shrinks the images of one chunk of rows, and cleans their captions; runs in a worker process."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from data_tools.fetch import MAX_FILE_BYTES, FetchRules, fetch
from data_tools.images import ImageRules, prepare_image
from data_tools.left_out import Unusable
from data_tools.metadata import object_at, read_facts, reason_of
from data_tools.records import Record
from data_tools.rows import (
    NOT_TEXT,
    UNUSABLE_QUESTION,
    Cell,
    Inside,
    Loss,
    Place,
    Row,
    as_captions,
    is_remote,
    type_name,
)
from data_tools.texts import CaptionRules, check_caption, clean_text
from data_tools.workshop import Workshop
from mmtrain.io.text import without_credentials

MAX_TEXT_BYTES = 1 << 20  # of a caption, wherever it comes from; `mmdata verify` has the same limit
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
    losses: tuple[Loss, ...]  # of values


class Captions(NamedTuple):
    """Those of a row that may stay, and why the others may not."""

    kept: tuple[str, ...]
    losses: tuple[Loss, ...] = ()
    num_read: int = 0
    num_repeated: int = 0  # equal to an earlier one

    @property
    def detail(self) -> str:
        """How many may not stay, and why, in short."""
        reasons = ", ".join(dict.fromkeys(loss.reason for loss in self.losses))
        return f"{len(self.losses)} of {self.num_read} captions left out: {reasons}" if self.losses else ""


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


def read_captions(captions: Sequence[str | Place | Loss], rules: CaptionRules, fetch_rules: FetchRules) -> Captions:
    """The captions cleaned and sorted; Unusable, with the first one's fault, where none may stay."""
    losses: list[Loss] = []
    kept: list[str] = []
    for given in captions:
        try:
            if isinstance(given, Loss):
                raise Unusable(given.reason, given.detail)
            caption = _clean(given if isinstance(given, str) else _text_at(given, fetch_rules))
            check_caption(caption, rules)
            kept.append(caption)
        except Unusable as error:
            losses.append(Loss(error.reason, error.detail))
    if not kept:
        raise Unusable(losses[0].reason, losses[0].detail) if losses else Unusable(NO_CAPTION)
    different = tuple(dict.fromkeys(kept))
    return Captions(different, tuple(losses), len(captions), len(kept) - len(different))


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
        losses = list(row.losses)
        facts = read_facts(row, how.fetch, losses)
        captions = _captions(row, facts, how)
        if row.image is None:
            raise Unusable("missing image")
        return Gathered(captions, facts, _image(row.image, how.fetch), tuple(losses))  # last, for it costs most
    except Unusable as error:
        return error


def _image(place: Place, rules: FetchRules) -> bytes:
    if isinstance(place, Cell):
        from data_tools.parquet import read_cell  # pyarrow takes a while to import

        return read_cell(place, MAX_FILE_BYTES)
    return fetch(place, rules)


def _captions(row: Row, facts: dict[str, Any] | None, how: Preparation) -> Captions:
    """Those that may stay; an image about which questions are asked needs none."""
    try:
        return read_captions((*row.captions, *_further_captions(row, facts)), how.captions, how.fetch)
    except Unusable as fault:
        if fault.reason != NO_CAPTION or not (facts and facts.get("questions")):
            raise
        count = len(row.captions)
        return Captions((), (Loss(NO_CAPTION, fault.detail),) * count, count)


def _prepare_row(row: Row, found: Gathered | Unusable, rules: ImageRules, out: BinaryIO) -> Record:
    try:
        if isinstance(found, Unusable):
            raise found
        prepared = prepare_image(found.image, rules)
    except Unusable as error:
        asked = row.facts.get("questions", ()) if isinstance(row.facts, dict) else ()
        return Record(
            row.number,
            without_credentials(row.source),
            error.reason,
            without_credentials(error.detail),
            num_captions_read=len(row.captions),
            num_questions_read=len(asked),
        )
    offset = out.tell()
    out.write(prepared.content)
    return Record(
        number=row.number,
        source=without_credentials(row.source),
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
        num_captions_read=found.captions.num_read,
        num_captions_repeated=found.captions.num_repeated,
        num_captions_lost=len(found.captions.losses),
        num_questions_read=len((found.facts or {}).get("questions", ()))
        + sum(loss.reason == UNUSABLE_QUESTION for loss in found.losses),
        losses=found.captions.losses + found.losses,
    )


def _clean(text: str) -> str:
    caption = clean_text(text)
    if not caption:
        raise Unusable(NO_CAPTION)
    try:
        num_bytes = len(caption.encode())
    except UnicodeEncodeError as error:
        raise Unusable(NOT_TEXT, f"a lone surrogate ({ascii(caption[error.start])[1:-1]})") from error
    if num_bytes > MAX_TEXT_BYTES:
        raise Unusable("caption too long", f"{num_bytes} bytes, at most {MAX_TEXT_BYTES}")
    return caption


def _text_at(place: Place, rules: FetchRules) -> str:
    if isinstance(place, Inside) and place.field:
        said = object_at(place, rules).get(place.field)
        if said is not None and not isinstance(said, str):
            raise Unusable(NOT_TEXT, f"{place.field!r} of the .json is {type_name(said)}")
        return said or ""
    try:
        return fetch(place, rules, MAX_TEXT_BYTES).decode("utf-8-sig")
    except (Unusable, UnicodeDecodeError) as error:
        raise Unusable("caption cannot be read", reason_of(error)) from error


def _further_captions(row: Row, facts: dict[str, Any] | None) -> tuple[str | Place | Loss, ...]:
    """Taken out of the facts of a shard's sample: the captions that `mmdata build` puts there beside the first one."""
    if not facts or not isinstance(row.facts, Inside):
        return ()
    return as_captions(facts.pop("captions", None), "captions of the .json")
