"""`mmdata answers`: the list of answers that a model which chooses is to know, from the questions in shards."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmtrain.data.index import open_index, read_part


def common_answers(shards: Sequence[Path], *, min_count: int, most: int | None) -> tuple[list[str], float]:
    """The answers to at least `min_count` questions, commonest first, and the share of the questions they answer.

    A question counts for the answer that most people gave.
    """
    seen: Counter[str] = Counter()
    for shard in shards:
        for parts in open_index(shard).parts:
            asked = asked_in(read_part(shard, parts["json"])) if "json" in parts else []
            seen.update(answer for question in asked if (answer := _main_answer(question)))
    kept = sorted((answer for answer, count in seen.items() if count >= min_count), key=lambda one: (-seen[one], one))
    kept = kept[:most]
    return kept, sum(seen[answer] for answer in kept) / max(seen.total(), 1)


def asked_in(content: bytes) -> list[dict[str, Any]]:
    """The questions in a sample's KEY.json; none where it holds none, or is no JSON, which others will say."""
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return []
    questions = said.get("questions") if isinstance(said, dict) else None
    return [one for one in questions if isinstance(one, dict)] if isinstance(questions, list) else []


def texts_of(question: dict[str, Any]) -> Iterator[str]:
    """The question and its answers, an answer that several people gave as often."""
    given = question.get("answers") or [question.get("answer")]
    for text in (question.get("question"), *(given if isinstance(given, list) else ())):
        if isinstance(text, str):
            yield text


def _main_answer(question: dict[str, Any]) -> str:
    given = question.get("answer")
    if not isinstance(given, str):
        counted = Counter(list(texts_of(question))[1:])
        given = min(counted, key=lambda one: (-counted[one], one), default="")
    return given.strip()
