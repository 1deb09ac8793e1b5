"""Captions with a split for each image: Karpathy's JSON of COCO and Flickr30k, and Flickr30k's .csv and .token."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_tools.coco import asked_of, field_of, read_questions, records_of
from data_tools.rows import Row, locate
from mmtrain.data.index import DataError

TOKEN_SUFFIX = ".token"
FLICKR_COLUMNS = frozenset({"raw", "split", "filename"})


def is_karpathy(content: Any) -> bool:
    """Whether a JSON file is of Karpathy's kind: images with their sentences."""
    images = content.get("images") if isinstance(content, dict) else None
    return bool(images) and isinstance(images, list) and isinstance(images[0], dict) and "sentences" in images[0]


def karpathy_rows(
    place: Path, content: Any, root: str, splits: Sequence[str], questions: Sequence[tuple[str, str | None]]
) -> Iterator[Row]:
    """One row per image of the wanted splits, with its sentences as written, and the questions asked about it."""
    images, asked = records_of(content, "images", place), read_questions(questions)
    check_splits(place, splits, Counter(str(field_of(image, "split", place)) for image in images))
    for image in images:
        if image["split"] not in splits:
            continue
        name = str(field_of(image, "filename", place))
        path = f"{image['filepath']}/{name}" if image.get("filepath") else name
        sentences = records_of(image, "sentences", place)
        texts = tuple(str(field_of(sentence, "raw", place)) for sentence in sentences)
        number = image.get("cocoid")
        facts = ({} if number is None else {"coco_id": number}) | asked_of(asked, number)
        yield Row(0, path, locate(path, root), texts, facts or None)


def is_flickr_table(place: Path) -> bool:
    """Whether a .csv is that of Flickr30k: file name, split, and captions as a JSON list."""
    try:
        with open(place, encoding="utf-8-sig", newline="") as lines:
            return set(next(csv.reader(lines), ())) >= FLICKR_COLUMNS
    except (OSError, UnicodeDecodeError, csv.Error):
        return False  # whoever reads it as a table says what is wrong


def flickr_rows(place: Path, root: str, splits: Sequence[str]) -> Iterator[Row]:
    """One row per image of the wanted splits of Flickr30k's table."""
    with open(place, encoding="utf-8-sig", newline="") as lines:
        records = list(csv.DictReader(lines))
    check_splits(place, splits, Counter(str(record["split"]) for record in records))
    for line, record in enumerate(records, start=2):
        if record["split"] in splits:
            try:
                texts = json.loads(record["raw"])
            except ValueError as error:
                raise DataError(f"{place}, line {line}: raw is no list of captions ({error})") from error
            yield Row(0, record["filename"], locate(record["filename"], root), tuple(map(str, texts)))


def token_rows(place: Path, root: str) -> Iterator[Row]:
    """One row per image of lines NAME#NUMBER, a tab and a caption, in the order in which images are first named."""
    captions: dict[str, list[str]] = {}
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{place} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        name, tab, caption = line.partition("\t")
        if line.strip() and not tab:
            raise DataError(f"{place}, line {number}: {line[:60]!r} is not IMAGE#NUMBER, a tab and a caption")
        if line.strip():
            captions.setdefault(name.rpartition("#")[0] or name, []).append(caption)
    for name, texts in captions.items():
        yield Row(0, name, locate(name, root), tuple(texts))


def check_splits(place: Path, wanted: Sequence[str], found: Counter[str]) -> None:
    """DataError where no split is named, or one that is not there: training on what is tested by is easily done."""
    there = ", ".join(f"{name} ({count} images)" for name, count in found.items())
    if not wanted:
        raise DataError(f"{place} holds the splits {there}; say which are wanted: --split NAME ...")
    for name in wanted:
        if name not in found:
            raise DataError(f"{place} has no split {name!r}; it holds {there}")
