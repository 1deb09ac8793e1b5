"""Captions with a split for each image: Karpathy's JSON of COCO and Flickr30k, and Flickr30k's .csv and .token."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_tools.annotations import entries_of, entry_fault, id_of, repeated_ids
from data_tools.coco import ID_TWICE, QuestionFiles, read_questions
from data_tools.delimited import BYTE_ORDER_MARK, NOT_UTF8, Record, open_delimited, open_text
from data_tools.rows import NOT_TEXT, Captions, Loss, Row, as_captions, faulty, named_row, type_name
from mmtrain.data.index import DataError
from mmtrain.io.json_text import JsonError, strict_json

TOKEN_SUFFIX = ".token"  # noqa: S105 (the suffix of a table)
FLICKR_COLUMNS = frozenset({"raw", "split", "filename"})


def is_karpathy(content: Any) -> bool:
    """Whether a JSON file is of Karpathy's kind: images with their sentences."""
    images = content.get("images") if isinstance(content, dict) else None
    return isinstance(images, list) and any(isinstance(image, dict) and "sentences" in image for image in images)


def karpathy_rows(
    place: Path, content: Any, root: str, splits: Sequence[str], questions: QuestionFiles
) -> Iterator[Row]:
    """One row per image of the wanted splits, with its sentences as written, and the questions asked about it.

    Then the questions that cannot be used; those about images of other splits are none of them.
    """
    images = entries_of(content, "images", place, ("split", "filename", "sentences"))
    asked = read_questions(questions)
    check_splits(place, splits, Counter(_split_of(image) for image in images))
    twice = {number for number, _, _ in repeated_ids(images, "cocoid", ("filename",))}
    listed = set()
    for number, image in enumerate(images):
        line = f"{place.name}: image {number}"
        fault, detail = _image_fault(image, is_twice=number in twice)
        if fault:
            yield faulty(line, fault, detail)
            continue
        listed.add(id_of(image.get("cocoid")) or "")
        if image["split"] in splits:
            name, folder = image.get("filename"), image.get("filepath")
            path = f"{folder}/{name}" if folder and isinstance(name, str) and name.strip() else name
            coco_id = image.get("cocoid")
            facts = ({} if coco_id is None else {"coco_id": coco_id}) | asked.facts(coco_id)
            yield named_row(line, path, root, _sentences(image.get("sentences")), facts)
    yield from asked.faults
    if asked:
        yield from asked.without_image(listed, place)


def is_flickr_table(place: Path) -> bool:
    """Whether a .csv is that of Flickr30k: file name, split, and captions as a JSON list."""
    try:
        with open_delimited(place) as table:
            return set(table.header) >= FLICKR_COLUMNS
    except (OSError, csv.Error, DataError):
        return False  # whoever reads it as a table says what is wrong


def flickr_rows(place: Path, root: str, splits: Sequence[str]) -> Iterator[Row]:
    """One row per image of the wanted splits of Flickr30k's table."""
    with open_delimited(place) as table:
        records = list(table.records("filename"))
    check_splits(place, splits, Counter(record.values["split"] for record in records if not record.fault))
    for record in records:
        if record.fault:
            yield faulty(f"{place.name}: {record.line}", record.fault, record.detail)
        elif record.values["split"] in splits:
            yield named_row(f"{place.name}: {record.line}", record.values["filename"], root, _raw_captions(record))


def token_rows(place: Path, root: str) -> Iterator[Row]:
    """One row per image of lines NAME#NUMBER, a tab and a caption, in the order in which images are first named.

    Only LF ends a line. Lines that are none of these come last.
    """
    captions: dict[str, list[str]] = {}
    first_line: dict[str, int] = {}
    rejected = []
    try:
        with open_text(place) as file:
            content = file.read().removeprefix(BYTE_ORDER_MARK)
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error}") from error
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        name, caption, fault, detail = _token_line(line, number)
        if fault:
            rejected.append(faulty(f"{place.name}: line {number}", fault, detail))
            continue
        captions.setdefault(name, []).append(caption)
        first_line.setdefault(name, number)
    if rejected and not captions:
        raise DataError(f"{place}, {rejected[0].source.rpartition(': ')[2]}: {rejected[0].detail or rejected[0].fault}")
    for name, texts in captions.items():
        yield named_row(f"{place.name}: line {first_line[name]}", name, root, tuple(texts))
    yield from rejected


def check_splits(place: Path, wanted: Sequence[str], found: Counter[str]) -> None:
    """DataError where no split is named, or one that is not there: training on what is tested by is easily done."""
    there = ", ".join(f"{name} ({count} images)" for name, count in found.items() if name)
    if not wanted:
        raise DataError(f"{place} holds the splits {there}; say which are wanted: --split NAME ...")
    for name in wanted:
        if name not in found:
            raise DataError(f"{place} has no split {name!r}; it holds {there}")


def _split_of(image: Any) -> str:
    split = image.get("split") if isinstance(image, dict) else None
    return split if isinstance(split, str) else ""


def _image_fault(image: Any, *, is_twice: bool) -> tuple[str, str]:
    """Why an image's entry cannot be used, and in detail; two empty texts where it can."""
    if not isinstance(image, dict) or image.get("cocoid") is not None:
        fault, detail = entry_fault(image, "cocoid")
        if fault:
            return fault, detail
    if not _split_of(image):
        return "image without a split", type_name(image.get("split"))
    if not isinstance(image.get("filepath", ""), str | None):
        return "image is not text", f"its filepath is {type_name(image['filepath'])}"
    return (ID_TWICE, f"cocoid {image['cocoid']} of {image.get('filename')!r}") if is_twice else ("", "")


def _sentences(several: Any) -> Captions:
    if several is None:
        return ()
    if not isinstance(several, list):
        return (Loss(NOT_TEXT, f"sentences: {type_name(several)}"),)
    found: list[str | Loss] = []
    for number, one in enumerate(several):
        raw = one.get("raw") if isinstance(one, dict) else None
        got = type_name(raw) if isinstance(one, dict) else f'{type_name(one)}, not an object with "raw"'
        found.append(raw if isinstance(raw, str) else Loss(NOT_TEXT, f"sentence {number}: {got}"))
    return tuple(found)


def _raw_captions(record: Record) -> Captions:
    """The captions of Flickr30k's column raw, a list of texts in JSON."""
    try:
        several = strict_json(record.values["raw"])
    except JsonError as error:
        return (Loss(NOT_TEXT, f"raw of {record.line}: {error}"),)
    if not isinstance(several, list):
        return (Loss(NOT_TEXT, f"raw of {record.line} is {type_name(several)}, not a list of texts"),)
    return as_captions(several, f"raw of {record.line}")


def _token_line(line: bytes, number: int) -> tuple[str, str, str, str]:
    """Name and caption of a line, or fault and detail."""
    try:
        text = line.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        return "", "", NOT_UTF8, f"byte {error.start} of line {number} is 0x{line[error.start]:02x}"
    name, tab, caption = text.partition("\t")
    if not tab:
        return "", "", "not a line of captions", f"{text[:60]!r} is not IMAGE#NUMBER, a tab and a caption"
    name = name.rpartition("#")[0] or name
    return (name, caption, "", "") if name.strip() else ("", "", "missing image", f"{text[:60]!r}")
