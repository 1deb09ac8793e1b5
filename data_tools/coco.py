"""COCO captions and NoCaps, several captions to an image, and VQA v2 questions about the same images.

An entry that cannot be used is left out by its place in the file, never with the file.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_tools.annotations import by_id, entries_of, entry_fault, id_of, json_content, repeated_ids
from data_tools.rows import NOT_TEXT, UNUSABLE_QUESTION, Loss, Row, faulty, named_row, type_name
from mmtrain.data.faults import SampleError
from mmtrain.data.index import DataError
from mmtrain.data.question_schema import parse_questions
from mmtrain.io.json_text import json_fault

Question = dict[str, Any]
QuestionFiles = Sequence[tuple[str, str | None]]
CARRIED = ("domain", "open_images_id")  # what NoCaps says of an image
ID_TWICE = "id stands twice"


@dataclass
class Asked:
    """Questions by the id of their image, and the entries that are none."""

    by_image: dict[str, list[Question]] = field(default_factory=lambda: defaultdict(list))
    faults: list[Row] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.by_image)

    def facts(self, image_id: Any) -> dict[str, list[Question]]:
        """The questions about an image, as they stand in KEY.json."""
        asked = self.by_image.get(id_of(image_id) or "")
        return {"questions": asked} if asked else {}

    def without_image(self, images: set[str], place: Path) -> Iterator[Row]:
        """Questions about images that `place` does not name, each to be left out; DataError where all are."""
        alone = [(image, one) for image, several in self.by_image.items() if image not in images for one in several]
        if alone and len(alone) == sum(map(len, self.by_image.values())):
            raise DataError(
                f"none of the {len(alone)} questions of --vqa is about an image of {place} (image {alone[0][0]!r} is "
                "the first); is it its split?"
            )
        for image, question in alone:
            yield faulty(f"question {question['question_id']}", "question without its image", f"image {image}")


def coco_rows(place: Path, content: Any, root: str, questions: QuestionFiles) -> Iterator[Row]:
    """One row per image of a COCO captions file, in its order, with its captions and the questions asked about it;
    then one for each annotation and question that cannot be used.

    `questions`: files of VQA v2 questions, each with the file of its annotations where there are answers. With
    questions an image needs no captions, as in the lists of test images.
    """
    asked = read_questions(questions)
    needs_captions = not asked or "annotations" in content
    annotations = entries_of(content, "annotations", place, ("image_id", "caption")) if needs_captions else []
    images = entries_of(content, "images", place, ("file_name", "id"))
    listed = by_id(images, "id")
    captions, rejected = _captions_by_image(annotations, listed, place)
    twice = {number: (one, again) for number, one, again in repeated_ids(images, "id", ("file_name",))}
    given = set[str]()
    for number, image in enumerate(images):
        line = f"{place.name}: image {number}"
        fault, detail = entry_fault(image, "id")
        if fault:
            yield faulty(line, fault, detail)
            continue
        if number in twice:
            one, is_repetition = twice[number]
            others = "said before" if is_repetition else "nobody knows whose captions are meant"
            yield faulty(line, ID_TWICE, f"id {one} of {image.get('file_name')!r}: {others}")
            continue
        one = id_of(image["id"]) or ""
        given.add(one)
        own = tuple(captions.pop(one, ()))
        facts = {"coco_id": image["id"]} | {key: image[key] for key in CARRIED if key in image}
        yield named_row(line, image.get("file_name"), root, own, facts | asked.facts(image["id"]))
    for one, several in captions.items():  # of images whose id stands twice
        yield from (faulty(f"{place.name}: captions of image {one}", ID_TWICE, captions=(text,)) for text in several)
    yield from rejected
    yield from asked.faults
    if asked:
        yield from asked.without_image(given, place)


def read_questions(files: QuestionFiles) -> Asked:
    """All questions by the id of their image."""
    asked = Asked()
    for questions, annotations in files:
        _read_questions(asked, Path(questions), annotations and Path(annotations))
    return asked


def _captions_by_image(
    annotations: Sequence[Any], listed: dict[str, list[int]], place: Path
) -> tuple[dict[str, list[str | Loss]], list[Row]]:
    """Captions by the id of their image, and the annotations that are none or about no image of the file."""
    captions: dict[str, list[Any]] = defaultdict(list)
    rejected = []
    for number, said in enumerate(annotations):
        line = f"annotation {number}"
        fault, detail = entry_fault(said, "image_id")
        if fault:
            rejected.append(faulty(f"{place.name}: {line}", fault, detail))
        elif (one := id_of(said["image_id"]) or "") not in listed:
            rejected.append(faulty(f"{place.name}: {line}", "caption without its image", f"image {one}"))
        elif isinstance(text := said.get("caption"), str):
            captions[one].append(text)
        else:
            captions[one].append(Loss(NOT_TEXT, f"{line}: {type_name(text)}"))
    if annotations and len(rejected) == len(annotations) and listed:
        first = next(iter(listed))
        raise DataError(
            f"none of the {len(annotations)} annotations of {place} is about one of its images (image {first!r} is the "
            f"first, {rejected[0].detail!r} the first annotation's); ids match where they are written alike"
        )
    return captions, rejected


def _read_questions(asked: Asked, place: Path, annotations: Path | None) -> None:
    """Take in one file; "answer" is the commonest answer, "answers" are those of all annotators."""
    questions = entries_of(json_content(place), "questions", place, ("question_id", "question", "image_id"))
    answers = _Answers(annotations, place) if annotations else None
    twice = {number: one for number, one, _ in repeated_ids(questions, "question_id", ("question", "image_id"))}
    for number, entry in enumerate(questions):
        line = f"{place.name}: question {number}"
        fault, detail = entry_fault(entry, "question_id")
        if not fault:
            fault, detail = entry_fault(entry, "image_id")
        if not fault and number in twice:
            fault, detail = ID_TWICE, f"question {twice[number]}"
        if not fault:
            question: Question = {"question": entry.get("question"), "question_id": entry["question_id"]}
            if answers:
                fault, detail = answers.add_to(question, entry)
        if not fault:
            fault, detail = _question_fault(question)
        if fault:
            asked.faults.append(faulty(line, fault, detail))
        else:
            asked.by_image[id_of(entry["image_id"]) or ""].append(question)
    if answers:
        asked.faults += answers.rest(by_id(questions, "question_id"))


class _Answers:
    """The answers of a VQA v2 file of annotations, by question."""

    def __init__(self, place: Path, questions: Path) -> None:
        self._place, self._questions = place, questions
        self._entries = entries_of(json_content(place), "annotations", place, ("question_id",))
        self._numbers = by_id(self._entries, "question_id")
        same = ("image_id", "multiple_choice_answer", "answers")
        self._twice = {one for _, one, again in repeated_ids(self._entries, "question_id", same) if not again}

    def add_to(self, question: Question, asked: Any) -> tuple[str, str]:
        """Give a question its answers; why there are none, and in detail."""
        one = id_of(asked["question_id"]) or ""
        if one not in self._numbers:
            return "question without its answer", f"{self._place.name} does not answer question {one}"
        if one in self._twice:
            return ID_TWICE, f"{self._place.name} answers question {one} in different ways"
        answer = self._entries[self._numbers[one][0]]
        image = answer.get("image_id", asked["image_id"])
        if id_of(image) != id_of(asked["image_id"]):
            return "question without its answer", f"the answer is about image {image}, not {asked['image_id']}"
        if answer.get("multiple_choice_answer") is not None:
            question["answer"] = answer["multiple_choice_answer"]
        if answer.get("answers") is not None:
            given = answer["answers"]
            question["answers"] = [_text_of(item) for item in given] if isinstance(given, list) else given
        question["kind"] = answer.get("answer_type") or ""
        if not (question.get("answers") or question.get("answer")):
            return "question without its answer", f"{self._place.name} has an entry for it without answers"
        return "", ""

    def rest(self, asked: dict[str, list[int]]) -> Iterator[Row]:
        """Annotations that are none or answer nothing that was asked; DataError where no question has its answer."""
        if asked and not asked.keys() & self._numbers.keys():
            raise DataError(
                f"{self._place} does not answer question {next(iter(asked))} of {self._questions}, nor any other; do "
                "they belong together?"
            )
        repeated = {number for number, _, _ in repeated_ids(self._entries, "question_id", ())}
        for number, entry in enumerate(self._entries):
            line = f"{self._place.name}: annotation {number}"
            fault, detail = entry_fault(entry, "question_id")
            if fault:
                yield faulty(line, fault, detail)
            elif (one := id_of(entry["question_id"])) not in asked:
                yield faulty(line, "answer without its question", f"question {one}")
            elif number in repeated:
                yield faulty(line, ID_TWICE, f"question {one}")


def _text_of(item: Any) -> Any:
    """The answer of an annotator, which VQA v2 puts into an object."""
    return item.get("answer") if isinstance(item, dict) else item


def _question_fault(question: Question) -> tuple[str, str]:
    if fault := json_fault(question):
        return UNUSABLE_QUESTION, fault
    try:
        parse_questions({"questions": [question]})
    except SampleError as error:
        return UNUSABLE_QUESTION, str(error)
    return "", ""
