"""What is wrong with the structure of a shard as a whole: order of members, dots in names, parts that are missing.

One sentence a shard and kind of fault, with how many samples have it, which one first, and what mends it.
"""

from collections import Counter
from collections.abc import Collection, Iterator

from data_tools.answers import asked_in
from data_tools.metadata import MAX_FACTS_BYTES
from mmtrain.data.index import Fault, Part, ShardIndex, read_part
from mmtrain.data.sidecar import PREFERRED
from mmtrain.io.json_text import JsonError, strict_json

CAPTION_FIELD = "caption"  # of KEY.json, from which `mmdata build` takes captions where there is no KEY.txt
KIND_OF = {extension: kind for kind, extensions in PREFERRED.items() for extension in extensions}

Parts = dict[str, Part]


def structure_faults(index: ShardIndex) -> list[Fault]:
    """All of it, of one shard; of KEY.json only those without a KEY.txt are read."""
    return [*layout_faults(index), *_missing(index, explained_keys(index))]


def layout_faults(index: ShardIndex) -> list[Fault]:
    """Scattered samples and dotted names, a fault for each kind."""
    found = []
    if scattered := scattered_keys(index):
        found.append(
            f"has {_counted(scattered)} whose parts do not follow each other: readers take each run of parts for a "
            "sample of its own; write the tar anew with its members sorted by name (`tar --sort=name`)"
        )
    if dotted := {key: parts for key, parts in zip(index.keys, index.parts, strict=True) if is_dotted(parts)}:
        found.append(f"has {_counted(dotted)} with {dot_reason(*next(iter(dotted.items())))}")
    return [Fault(index.path.name, "", reason) for reason in found]


def dot_reason(key: str, parts: Parts) -> str:
    """What is wrong with files of a sample that have a dot in their name."""
    example = next(extension for extension in parts if _dotted_kind(extension))
    return (
        f"a dot inside a name ({key}.{example}): a key ends at its first dot, so such files are no samples of their "
        "own; write the tar anew with names without dots"
    )


def explained_keys(index: ShardIndex) -> set[str]:
    """Samples that lack parts because of the layout, which is named once for the shard."""
    dotted = {key for key, parts in zip(index.keys, index.parts, strict=True) if is_dotted(parts)}
    whole = {key for key, parts in zip(index.keys, index.parts, strict=True) if {"image", "caption"} <= kinds_of(parts)}
    return set(scattered_keys(index)) | (dotted - whole)


def kinds_of(parts: Parts) -> set[str]:
    """Which of image, caption and metadata a sample has."""
    return {KIND_OF[extension] for extension in parts if extension in KIND_OF}


def scattered_keys(index: ShardIndex) -> dict[str, int]:
    """Keys that stand at several places of the tar, in order, each with the number of places."""
    return {key: count for key, count in Counter(index.keys).items() if count > 1}


def caption_fault(index: ShardIndex, parts: Parts) -> str:
    """Why a sample without a KEY.txt has no caption; empty where it needs none, for it has questions."""
    if "json" not in parts or parts["json"].size > MAX_FACTS_BYTES:
        return "has no caption"
    content = read_part(index.path, parts["json"])
    if asked_in(content):
        return ""
    try:
        said = strict_json(content)
    except JsonError:
        return "has no caption"
    caption = said.get(CAPTION_FIELD) if isinstance(said, dict) else None
    if isinstance(caption, str) and caption.strip():
        return f"has no caption (.txt), only the field {CAPTION_FIELD!r} of its .json; `mmdata build` makes .txt of it"
    return "has no caption"


def _missing(index: ShardIndex, explained: Collection[str]) -> Iterator[Fault]:
    """A fault for each kind of part that samples lack."""
    lacking: dict[str, list[str]] = {}
    for key, parts in zip(index.keys, index.parts, strict=True):
        if key in explained:
            continue
        if "image" not in kinds_of(parts):
            lacking.setdefault("has no image", []).append(key)
        if "txt" not in parts and (reason := caption_fault(index, parts)):
            lacking.setdefault(reason, []).append(key)
    for reason, keys in lacking.items():
        lack = reason if len(keys) == 1 else f"have{reason.removeprefix('has')}"
        yield Fault(index.path.name, "", f"{len(keys)} of {len(index.keys)} samples {lack} ({keys[0]} first)")


def is_dotted(parts: Parts) -> bool:
    """Whether files with a dot in their name were meant as samples of their own: a pair, or what the key itself lacks.

    Further files beside a whole sample, as KEY.seg.png, are no fault.
    """
    meant: dict[str, set[str]] = {}
    for extension in parts:
        if kind := _dotted_kind(extension):
            meant.setdefault(extension.rpartition(".")[0], set()).add(kind)
    if not meant:
        return False
    lacking = {"image", "caption"} - kinds_of(parts)
    return any({"image", "caption"} <= kinds or kinds & lacking for kinds in meant.values())


def _dotted_kind(extension: str) -> str:
    stem, _, last = extension.rpartition(".")
    return KIND_OF.get(last, "") if stem else ""


def _counted(keys: Collection[str]) -> str:
    return f"{len(keys)} sample{'s' if len(keys) > 1 else ''} ({next(iter(keys))} first)"
