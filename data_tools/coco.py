"""COCO captions, several to an image, and VQA v2 questions about the same images."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_tools.rows import Row, locate
from mmtrain.data.index import DataError

Question = dict[str, Any]


def coco_rows(place: Path, root: str, questions: Sequence[tuple[str, str | None]]) -> Iterator[Row]:
    """One row per image of a COCO captions file, in its order, with its captions and the questions asked about it.

    `questions`: files of VQA v2 questions, each with the file of its annotations where there are answers.
    """
    captions = defaultdict(list)
    for said in _records(place, "annotations"):
        captions[_field(said, "image_id", place)].append(_field(said, "caption", place))
    asked: dict[Any, list[Question]] = defaultdict(list)
    for question_file, annotation_file in questions:
        for image_id, question in _questions(Path(question_file), annotation_file and Path(annotation_file)):
            asked[image_id].append(question)
    for image in _records(place, "images"):
        name, image_id = _field(image, "file_name", place), _field(image, "id", place)
        texts = tuple(text for text in captions[image_id] if isinstance(text, str))
        facts = {"coco_id": image_id} | ({"questions": asked[image_id]} if asked[image_id] else {})
        yield Row(0, str(name), locate(str(name), root), texts, facts)


def _questions(place: Path, annotations: Path | None) -> Iterator[tuple[Any, Question]]:
    """Image ids with questions; "answer" is the commonest answer, "answers" are those of all annotators."""
    said = {}
    if annotations:
        said = {_field(one, "question_id", annotations): one for one in _records(annotations, "annotations")}
    for asked in _records(place, "questions"):
        number = _field(asked, "question_id", place)
        question: Question = {"question": _field(asked, "question", place), "question_id": number}
        if annotations:
            if number not in said:
                raise DataError(f"{annotations} does not answer question {number} of {place}; do they belong together?")
            answer = said[number]
            question["answer"] = _field(answer, "multiple_choice_answer", annotations)
            question["answers"] = [one["answer"] for one in answer.get("answers", ()) if "answer" in one]
            question["kind"] = answer.get("answer_type", "")
        yield _field(asked, "image_id", place), question


def _records(place: Path, name: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(place.read_bytes())
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON: {error}") from error
    records = content.get(name) if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{place} has no list {name!r}; wanted a file in the layout of COCO captions or VQA v2")
    return records


def _field(record: dict[str, Any], name: str, place: Path) -> Any:
    if name not in record:
        raise DataError(f"{place} has an entry without {name!r}: {str(record)[:100]}")
    return record[name]
