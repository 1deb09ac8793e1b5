"""What a build reads, as local paths: compared with its output before anything is written."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from data_tools.rows import Inside, Row
from data_tools.sources import SourceOptions
from mmtrain.data.sources import local_name
from mmtrain.io.errors import InputError
from mmtrain.io.paths import resolve
from mmtrain.io.urls import is_remote

NamedPath = tuple[str, str | Path]  # the argument that names it, and the path


def named_inputs(
    places: Sequence[str], options: SourceOptions, against: Iterable[Path], failed: Path | None
) -> list[NamedPath]:
    """The local files and folders that a build reads, each with the argument that names it."""
    questions = [name for pair in options.questions for name in pair if name]
    return [
        *(("INPUT", path) for place in places for path in _local(place)),
        *(("--vqa", name) for name in questions),
        *(("--against", place) for place in against),
        *([("--retry-failed", failed)] if failed else []),
    ]


def tars_of(rows: Iterable[Row], downloads: Path) -> list[NamedPath]:
    """The shards that rows lie in, also those behind links in a folder; not copies of remote ones in `downloads`."""
    tars = {row.image.tar for row in rows if isinstance(row.image, Inside)}
    return [("INPUT", tar) for tar in tars if downloads not in tar.parents]


def _local(place: str) -> Iterator[Path]:
    """The paths that an INPUT stands for; none for an address, or where the name means nothing, as reading will say."""
    if not is_remote(place):
        with suppress(InputError):
            yield from (entry.path for entry in resolve(local_name(place, "INPUT"), "INPUT"))
