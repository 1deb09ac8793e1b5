"""COCO captions and NoCaps, several captions to an image, and VQA v2 questions about the same images."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_tools.rows import Row, faulty, locate
from mmtrain.data.index import DataError

Question = dict[str, Any]
Asked = dict[Any, list[Question]]  # by number of the image
CARRIED = ("domain", "open_images_id")  # what NoCaps says of an image


def json_content(place: Path) -> Any:
    """What a .json file holds; DataError where it cannot be read."""
    try:
        return json.loads(place.read_bytes())
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON: {error}") from error


def coco_rows(place: Path, content: Any, root: str, questions: Sequence[tuple[str, str | None]]) -> Iterator[Row]:
    """One row per image of a COCO captions file, in its order, with its captions and the questions asked about it.

    `questions`: files of VQA v2 questions, each with the file of its annotations where there are answers. With
    questions an image needs no captions, as in the lists of test images. A question without its image is left out.
    """
    asked, captions = read_questions(questions), defaultdict(list)
    needs_captions = not asked or "annotations" in content
    for said in records_of(content, "annotations", place) if needs_captions else ():
        captions[field_of(said, "image_id", place)].append(field_of(said, "caption", place))
    images = records_of(content, "images", place)
    for image in images:
        name, image_id = field_of(image, "file_name", place), field_of(image, "id", place)
        texts = tuple(text for text in captions[image_id] if isinstance(text, str))
        facts = {"coco_id": image_id} | {key: image[key] for key in CARRIED if key in image}
        yield Row(0, str(name), locate(str(name), root), texts, facts | asked_of(asked, image_id))
    if asked:
        yield from without_image(asked, {image["id"] for image in images}, place)


def asked_of(asked: Asked, image_id: Any) -> dict[str, list[Question]]:
    """The questions about an image, as they stand in KEY.json."""
    return {"questions": asked[image_id]} if asked.get(image_id) else {}


def without_image(asked: Asked, images: set[Any], place: Path) -> Iterator[Row]:
    """Questions about images that `place` does not name, to be named as left out; DataError where all are."""
    alone = [(image, question) for image, several in asked.items() if image not in images for question in several]
    if len(alone) == sum(map(len, asked.values())):
        raise DataError(f"none of the {len(alone)} questions of --vqa is about an image of {place}; is it its split?")
    for image, question in alone:
        yield faulty(f"question {question['question_id']}", "question without its image", f"image {image}")


def read_questions(files: Sequence[tuple[str, str | None]]) -> Asked:
    """All questions by the number of their image."""
    asked: Asked = {}
    for questions, annotations in files:
        for image_id, question in _questions(Path(questions), annotations and Path(annotations)):
            asked.setdefault(image_id, []).append(question)
    return asked


def _questions(place: Path, annotations: Path | None) -> Iterator[tuple[Any, Question]]:
    """Image ids with questions; "answer" is the commonest answer, "answers" are those of all annotators."""
    said = {}
    if annotations:
        found = records_of(json_content(annotations), "annotations", annotations)
        said = {field_of(one, "question_id", annotations): one for one in found}
    for asked in records_of(json_content(place), "questions", place):
        number = field_of(asked, "question_id", place)
        question: Question = {"question": field_of(asked, "question", place), "question_id": number}
        if annotations:
            if number not in said:
                raise DataError(f"{annotations} does not answer question {number} of {place}; do they belong together?")
            answer = said[number]
            question["answer"] = field_of(answer, "multiple_choice_answer", annotations)
            question["answers"] = [one["answer"] for one in answer.get("answers", ()) if "answer" in one]
            question["kind"] = answer.get("answer_type", "")
        yield field_of(asked, "image_id", place), question


def records_of(content: Any, name: str, place: Path) -> list[dict[str, Any]]:
    """The list of that name; DataError where there is none."""
    records = content.get(name) if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{place} has no list {name!r}; wanted a file in the layout of COCO captions or VQA v2")
    return records


def field_of(record: dict[str, Any], name: str, place: Path) -> Any:
    """One entry of a record; DataError where there is none."""
    if name not in record:
        raise DataError(f"{place} has an entry without {name!r}: {str(record)[:100]}")
    return record[name]
