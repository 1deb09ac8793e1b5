"""`mmdata answers`: the list of answers that a model which chooses is to know, from the questions in shards."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mmtrain.data.index import open_index, read_part
from mmtrain.data.question_schema import Question, answer_class, parse_questions
from mmtrain.io.json_text import JsonError, strict_json


class CommonAnswers(NamedTuple):
    """The list, and what it is worth."""

    answers: list[str]
    share: float  # of the questions that one of them answers
    num_unusable: int  # questions passed over: not in the layout of KEY.json


def common_answers(shards: Sequence[Path], *, min_count: int, most: int | None) -> CommonAnswers:
    """The answers to at least `min_count` questions, commonest first.

    A question counts for the answer that most people gave. Answers that training and scores take for one ("two" and
    "2", "the dog" and "dog") are counted as one and listed as most people spell it.
    """
    counts: Counter[str] = Counter()
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    faults: list[str] = []
    for shard in shards:
        for parts in open_index(shard).parts:
            for question in asked_in(read_part(shard, parts["json"]), faults) if "json" in parts else ():
                if answer := question.main_answer:
                    counts[answer_class(answer)] += 1
                    spellings[answer_class(answer)][answer] += 1
    name = {one: min(several, key=lambda text: (-several[text], text)) for one, several in spellings.items()}
    kept = [one for one, count in counts.items() if count >= min_count]
    kept = sorted(kept, key=lambda one: (-counts[one], name[one]))[:most]
    share = sum(counts[one] for one in kept) / max(counts.total(), 1)
    return CommonAnswers([name[one] for one in kept], share, len(faults))


def is_answer_list(path: Path) -> bool:
    """Whether a file may be a list of answers: lines of text."""
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return False
    return all(line == line.strip() and line.isprintable() and line for line in text.splitlines())


def asked_in(content: bytes, faults: list[str] | None = None) -> tuple[Question, ...]:
    """The questions in a sample's KEY.json that can be used; why others cannot is added to `faults`."""
    try:
        said = strict_json(content)
    except JsonError as error:
        if faults is not None:
            faults.append(f"its .json {error}")
        return ()
    return parse_questions(said, strict=False, faults=faults) if isinstance(said, dict) else ()


def texts_of(question: Question) -> Iterator[str]:
    """The question and its answers, an answer that several people gave as often."""
    yield question.text
    yield from question.answers
