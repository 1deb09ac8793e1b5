"""From the places that a user names to the tar files that lie there."""

import os
from collections import Counter
from collections.abc import Sequence
from glob import glob
from pathlib import Path

from braceexpand import UnbalancedBracesError, braceexpand

from mmtrain.data.faults import DataError


def find_shards(places: Sequence[str], knob: str = "data.train") -> list[Path]:
    """The tar files at `places` (folders, tar files, glob or {000..009} patterns), sorted; DataError naming `knob`."""
    if not places:
        raise DataError(f"{knob} names no place; give it a folder of shards, a tar file or a pattern")
    found = [shard for place in places for shard in _at_place(str(place), knob)]
    often, count = Counter(found).most_common(1)[0]
    if count > 1:
        raise DataError(f"{knob} names {str(often)!r} {count} times; each of its samples would be read as often")
    return sorted(found)


def _at_place(place: str, knob: str) -> list[Path]:
    try:
        shards = [shard for pattern in braceexpand(place) for shard in _at_pattern(pattern, place, knob)]
    except UnbalancedBracesError as error:
        raise DataError(f"{knob} is {place!r}, whose braces are not balanced; wanted as in {{000..009}}") from error
    if not shards:
        raise DataError(f"{knob} is {place!r}, where no .tar file lies; give it a folder or a pattern of shards")
    return shards


def _at_pattern(pattern: str, place: str, knob: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        # The folder itself says what is a file: no question for each of a hundred thousand shards.
        return [path / entry.name for entry in os.scandir(path) if entry.name.endswith(".tar") and entry.is_file()]
    if path.is_file():
        return [path]
    if any(sign in pattern for sign in "*?["):
        return [Path(shard) for shard in glob(pattern, recursive=True) if shard.endswith(".tar")]
    of_place = "" if pattern == place else f" (from {place!r})"
    raise DataError(f"{knob} names {pattern!r}{of_place}, which does not exist; give it a folder or pattern of shards")
