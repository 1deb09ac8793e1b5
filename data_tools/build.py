"""`mmdata build`: shards of a user's images and captions; order and bytes do not depend on the number of processes."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random

from data_tools.images import MAX_FILE_BYTES, ImageRules, prepare_image
from data_tools.left_out import LeftOut, Unusable, count_reasons, write_left_out
from data_tools.pack import LEFT_OUT_NAME, Sample, clear_folder, in_shards, shard_path, write_shard
from data_tools.parallel import run_in_order
from data_tools.progress import Progress
from data_tools.sources import Columns, Row, read_rows
from data_tools.survey import Survey, survey_shard
from mmtrain.data.index import DataError, ShardEntry, write_manifest

SPLIT = "shard"  # what the tars are called
ROWS_PER_TASK = 16  # few enough for an even share, many enough that the travel between processes costs little


@dataclass(frozen=True)
class BuildSettings:
    """What, besides the input, the bytes of the shards follow from."""

    images: ImageRules = ImageRules()
    samples_per_shard: int = 1000
    seed: int | None = None  # shuffles the input; None keeps its order


@dataclass(frozen=True)
class BuildReport:
    """What came of the input."""

    num_packed: int
    num_shards: int
    left_out: tuple[LeftOut, ...]


def build_shards(
    place: Path,
    columns: Columns,
    folder: Path,
    settings: BuildSettings,
    processes: int,
    *,
    overwrite: bool = False,
) -> BuildReport:
    """Pack the pairs that `place` names into shards in `folder`, with index, manifest and a list of what is left out.

    DataError where the input cannot be read at all or holds no usable pair; the list is then written all the same.
    """
    rows = read_rows(place, columns)
    if settings.seed is not None:
        Random(settings.seed).shuffle(rows)
    clear_folder(folder, overwrite=overwrite)
    left_out: list[LeftOut] = []
    entries, survey = _pack(rows, folder, settings, processes, left_out)
    left_out.sort(key=lambda one: one.key)
    write_left_out(folder / LEFT_OUT_NAME, left_out)
    if not entries:
        raise DataError(_nothing(place, left_out))
    statistics = {**survey.record(), "left_out": count_reasons(left_out)}
    write_manifest(folder, entries, source=place.name, settings=asdict(settings), statistics=statistics)
    return BuildReport(sum(entry.num_samples for entry in entries), len(entries), tuple(left_out))


def prepare_row(row: Row, rules: ImageRules) -> Sample | LeftOut:
    """The row's sample, or why it has none."""
    try:
        if row.fault:
            raise Unusable(row.fault)
        caption = _caption(row)
        image = prepare_image(_image_bytes(row), rules)
    except Unusable as error:
        return LeftOut(row.source, row.key, error.reason, error.detail)
    facts = {
        "image_id": hashlib.blake2b(image.content, digest_size=8).hexdigest(),
        "caption_id": hashlib.blake2b(caption.encode(), digest_size=8).hexdigest(),
        "source": row.source,
        "size": image.size,
        "original_size": image.original_size,
    }
    files = {image.extension: image.content, "txt": caption.encode(), "json": json.dumps(facts).encode()}
    return Sample(row.key, files)


def _pack(
    rows: list[Row], folder: Path, settings: BuildSettings, processes: int, left_out: list[LeftOut]
) -> tuple[list[ShardEntry], Survey]:
    """Write the shards; what cannot be used goes to `left_out`."""
    entries, survey = [], Survey()
    with Progress("packing", len(rows)) as progress:
        samples = _usable(rows, settings.images, processes, left_out, progress)
        for number, held in enumerate(in_shards(samples, settings.samples_per_shard)):
            path = shard_path(folder, SPLIT, number)
            entries.append(write_shard(path, held))
            survey.add(survey_shard(path))
    return entries, survey


def _usable(
    rows: list[Row], rules: ImageRules, processes: int, left_out: list[LeftOut], progress: Progress
) -> Iterator[Sample]:
    tasks = [rows[first : first + ROWS_PER_TASK] for first in range(0, len(rows), ROWS_PER_TASK)]
    for results in run_in_order(partial(_prepare_rows, rules=rules), tasks, min(processes, max(len(tasks), 1))):
        for result in results:
            progress.advance()
            if isinstance(result, LeftOut):
                left_out.append(result)
            else:
                yield result


def _prepare_rows(rows: list[Row], rules: ImageRules) -> list[Sample | LeftOut]:
    return [prepare_row(row, rules) for row in rows]


def _caption(row: Row) -> str:
    """The caption on one line, its spaces made one."""
    text = row.caption
    if isinstance(text, Path):
        try:
            text = text.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise Unusable("caption cannot be read", str(error)) from error
    caption = " ".join((text or "").replace("\0", " ").split())
    if not caption:
        raise Unusable("missing caption")
    try:
        caption.encode()
    except UnicodeEncodeError as error:
        raise Unusable("caption is not text", error.reason) from error
    return caption


def _image_bytes(row: Row) -> bytes:
    if row.image is None:
        raise Unusable("missing image")
    try:
        if not row.image.is_file():
            raise Unusable("missing file", str(row.image))
        if (size := row.image.stat().st_size) > MAX_FILE_BYTES:
            raise Unusable("file too large", f"{size} bytes, at most {MAX_FILE_BYTES}")
        return row.image.read_bytes()
    except (OSError, ValueError) as error:
        raise Unusable("file cannot be read", str(error)) from error


def _nothing(place: Path, left_out: list[LeftOut]) -> str:
    reasons = ", ".join(f"{reason} {count} times" for reason, count in count_reasons(left_out).items())
    return f"INPUT {place} holds no usable pair of image and caption" + (f" ({reasons})" if reasons else "")
