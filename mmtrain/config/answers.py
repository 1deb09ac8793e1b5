"""A file of answers that a model chooses from, read into the list that stands in the run's config."""

from collections import Counter
from pathlib import Path

from mmtrain.io.documents import DocumentError, parse_json, read_document

MAX_BYTES = 64 * 2**20


def read_answers(path: Path) -> list[str]:
    """One answer a line, or a JSON list of texts; ValueError, in one sentence, for what is none."""
    named = f"task.answers is {str(path)!r}"
    try:
        content = read_document(path, max_bytes=MAX_BYTES)
        found = parse_json(content, path.name) if path.suffix == ".json" else content.decode().splitlines()
    except OSError as error:
        raise ValueError(f"{named}, which cannot be read: {error.strerror}") from error
    except (DocumentError, UnicodeDecodeError) as error:
        raise ValueError(f"{named}, which is no list of answers: {error}") from error
    if not isinstance(found, list) or not all(isinstance(answer, str) for answer in found):
        raise ValueError(f"{named}, which holds no list of texts; wanted an answer a line")
    answers = [stripped for answer in found if (stripped := answer.strip())]
    twice = [answer for answer, count in Counter(answers).items() if count > 1]
    if twice:
        raise ValueError(f"{named}, which has {twice[0]!r} twice; leave one")
    if not answers:
        raise ValueError(f"{named}, which is empty; wanted an answer a line")
    return answers
