"""A file of answers that a model chooses from, read into the list that stands in the run's config."""

import json
from collections import Counter
from pathlib import Path


def read_answers(path: Path) -> list[str]:
    """One answer a line, or a JSON list of texts; ValueError, in one sentence, for what is none."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except OSError as error:
        raise ValueError(f"task.answers is {str(path)!r}, which cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"task.answers is {str(path)!r}, which is no list of answers: {error}") from error
    if not isinstance(found, list) or not all(isinstance(answer, str) for answer in found):
        raise ValueError(f"task.answers is {str(path)!r}, which holds no list of texts; wanted an answer a line")
    answers = [stripped for answer in found if (stripped := answer.strip())]
    twice = [answer for answer, count in Counter(answers).items() if count > 1]
    if twice:
        raise ValueError(f"task.answers is {str(path)!r}, which has {twice[0]!r} twice; leave one")
    if not answers:
        raise ValueError(f"task.answers is {str(path)!r}, which is empty; wanted an answer a line")
    return answers
