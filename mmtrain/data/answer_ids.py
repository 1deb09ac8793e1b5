"""The ids under which answers are handed in to public evaluation servers, one for each image or question. No torch.

COCO knows an image by a number ("coco_id" in KEY.json), VQA a question by its "question_id". What has neither is known
by its key in the shards; where keys repeat, by shard and key.
"""

import logging
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LOG = logging.getLogger("mmtrain.data")
Id = int | str


@dataclass(frozen=True)
class Answered:
    """What one answer is about."""

    ids: tuple[Id, ...]  # by which it may be known, the best first; the last is its own alone
    identity: Hashable  # equal for equal images, or questions about them


def is_id(said: object) -> bool:
    """Whether something can be known by this: a number or a text that is not empty."""
    return (isinstance(said, int) and not isinstance(said, bool)) or (isinstance(said, str) and said != "")


def image_ids(metadata: Mapping[str, Any], shard: str, key: str, sample: int) -> tuple[Id, ...]:
    """The ids of an image: its number in COCO, its key, both with its shard."""
    number = metadata.get("coco_id")
    return (*([number] if is_id(number) else []), *_keys(shard, key, sample))


def question_ids(number: Id | None, shard: str, key: str, place: int, sample: int) -> tuple[Id, ...]:
    """The ids of a question, the `place`-th about its image: its own, else those of the image."""
    return (*([number] if is_id(number) else []), *_keys(shard, f"{key}-{place}", sample))


def _keys(shard: str, key: str, sample: int) -> tuple[str, str, str]:
    stem = shard.removesuffix(".tar")
    return key, f"{stem}/{key}", f"{stem}/{key}#{sample}"


def choose_ids(answered: Sequence[Answered], field: str) -> list[Id]:
    """One id for each; equal ones only for equal identities. Logs what of it keeps the file from being a submission."""
    chosen: list[Id] = [one.ids[0] for one in answered]
    clashing = _clashing(answered, chosen)
    if clashing:
        LOG.warning(
            "answers: in %d of %d the %s also stands for another image or question (%r first); they are known by shard "
            "and key instead, which is no submission to a public server",
            len(clashing), len(answered), field, chosen[min(clashing)],
        )  # fmt: skip
    level = 0
    while clashing and level < max(len(one.ids) for one in answered):
        level += 1
        for number in clashing:
            ids = answered[number].ids
            chosen[number] = ids[min(level, len(ids) - 1)]
        clashing = _clashing(answered, chosen)
    num_texts = sum(isinstance(one, str) for one in chosen)
    if num_texts and not all(isinstance(one.ids[0], str) for one in answered):
        LOG.warning("answers: %d of %d have a text as %s, not a number: no submission", num_texts, len(chosen), field)
    elif num_texts:
        LOG.info("answers: %s is the key of a sample, not a number of a public set: no submission to its server", field)
    return chosen


def merged_rows(ids: Sequence[Id], rows: Sequence[dict[str, Any]], field: str) -> list[dict[str, Any]]:
    """The rows with their ids, the first of each id: servers refuse or overwrite an id that stands twice."""
    found: dict[tuple[type, Id], dict[str, Any]] = {}
    for own, row in zip(ids, rows, strict=True):
        found.setdefault((type(own), own), {field: own, **row})
    if len(found) < len(rows):
        LOG.info("answers: %d answers to %d %ss: the first of each is kept", len(rows), len(found), field)
    return list(found.values())


def _clashing(answered: Sequence[Answered], chosen: Sequence[Id]) -> list[int]:
    """Numbers of the answers whose id stands for different things."""
    meant: dict[tuple[type, Id], set[Hashable]] = defaultdict(set)
    for one, own in zip(answered, chosen, strict=True):
        meant[type(own), own].add(one.identity)
    return [number for number, own in enumerate(chosen) if len(meant[type(own), own]) > 1]
