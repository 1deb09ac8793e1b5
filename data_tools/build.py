"""`mmdata build`: shards of a user's images and captions; their bytes do not depend on processes, parts or kills.

Rows are cut into chunks. Workers prepare chunks (workshop.py), the parent takes them in order, leaves out what was seen
before, and hands full shards back to the workers, which pack them.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random

from data_tools.apart import named_inputs, tars_of
from data_tools.assembly import Assembly, BuildReport, report_of
from data_tools.fetch import FetchRules, check_stores
from data_tools.images import ImageRules
from data_tools.pack import WORK_NAME
from data_tools.parallel import Workers
from data_tools.prepare import ChunkTask, Preparation, prepare_chunk
from data_tools.progress import Progress
from data_tools.rows import Row, is_remote
from data_tools.selection import CutRules
from data_tools.sources import SourceOptions, read_rows
from data_tools.table import check_table, failed_rows
from data_tools.target import check_target, listed_in, put_already, put_in_place, restore_set
from data_tools.texts import CaptionRules
from data_tools.workshop import Plan, Workshop
from mmtrain.data.index import DataError
from mmtrain.io.exchange import finish_replacement
from mmtrain.io.replace import check_apart
from mmtrain.io.text import encodable, without_credentials
from mmtrain.io.urls import shown_name

ROWS_PER_CHUNK = 128  # a killed build loses at most what each process had of one
REMOTE_ROWS_PER_CHUNK = 1024  # a chunk ends with its slowest download: the longer, the less that weighs


@dataclass(frozen=True)
class BuildSettings:
    """What, besides the input, the bytes of the shards follow from."""

    images: ImageRules = ImageRules()
    captions: CaptionRules = CaptionRules()
    cut: CutRules = CutRules()
    seed: int | None = None  # shuffles the input; None keeps its order


@dataclass(frozen=True)
class Effort:
    """How the work is done; changes no byte."""

    processes: int = 1
    fetch: FetchRules = FetchRules()
    part: tuple[int, int] | None = None  # (i, n): prepare only the i-th of n parts, from 0; `mmdata merge` packs


@dataclass(frozen=True)
class Earlier:
    """Runs that this one takes up."""

    against: tuple[Path, ...] = ()  # their images count as seen
    failed: Path | None = None  # only what could not be fetched then; its images count as seen too


PLAIN_OPTIONS, ONE_PROCESS, NOTHING_EARLIER = SourceOptions(), Effort(), Earlier()


def build_shards(
    places: Sequence[str],
    folder: Path,
    settings: BuildSettings,
    *,
    options: SourceOptions = PLAIN_OPTIONS,
    effort: Effort = ONE_PROCESS,
    earlier: Earlier = NOTHING_EARLIER,
    overwrite: bool = False,
) -> BuildReport | None:
    """Pack what `places` name into shards in `folder`, with index, manifest and a table of all that was left out.

    Goes on where an earlier, killed call with the same arguments stopped. None where only a part was prepared.
    DataError where the input cannot be read at all or holds no usable pair; the table is then written all the same.
    """
    workshop = Workshop(folder / WORK_NAME)
    if overwrite and effort.part:
        raise DataError("--overwrite would remove the work of the other parts; empty the folder before the first one")
    inputs = named_inputs(places, options, earlier.against, earlier.failed)
    _check_folder(folder, workshop, overwrite=overwrite, inputs=inputs)
    with workshop.locked(shared=effort.part is not None):
        # All inputs are read and checked before anything is written but copies of them.
        rows = _ordered(places, options, settings.seed, earlier.failed, workshop)
        check_stores(row.image for row in rows)
        check_apart(folder, tars_of(rows, workshop.inputs_folder), "OUT")
        for place in earlier.against:
            check_table(place, looks=settings.cut.dedup == "near")
        plan = _plan(rows, places, settings, earlier)
        workshop.open(plan, overwrite=overwrite)
        if report := _finish(folder, workshop, overwrite=overwrite):
            return report
        preparation = Preparation(workshop.folder, settings.images, settings.captions, effort.fetch)
        with Workers(min(effort.processes, max(plan.num_chunks, 1))) as workers:
            return _run(rows, workshop, preparation, effort, workers, overwrite=overwrite)


def merge_parts(folder: Path, processes: int) -> BuildReport:
    """Pack what all parts of a build have prepared; DataError naming the chunks where a part is not done."""
    workshop = Workshop(folder / WORK_NAME)
    plan = workshop.read_plan()
    _check_folder(folder, workshop, overwrite=False)
    with workshop.locked(shared=False):
        if report := _finish(folder, workshop, overwrite=False):
            return report
        missing = [chunk for chunk in range(plan.num_chunks) if not workshop.has_chunk(chunk)]
        if missing:
            raise DataError(
                f"{folder} is not complete: {len(missing)} of {plan.num_chunks} chunks are not prepared, the first is "
                f"chunk {missing[0]}; run the parts that are missing (`mmdata build ... --part i/n`)"
            )
        with Workers(processes) as workers, Progress("packing", plan.num_rows) as progress:
            return Assembly(folder, workshop, workers).run(range(plan.num_chunks), progress)


def _check_folder(
    folder: Path, workshop: Workshop, *, overwrite: bool, inputs: Sequence[tuple[str, str | Path]] = ()
) -> None:
    """Refuse, before anything is written, a folder in which the new set would touch what is not its own."""
    finish_replacement(folder)
    workshop.check_own()
    if overwrite or not _is_done(folder, workshop):
        check_target(folder, overwrite=overwrite, inputs=inputs, unfinished=put_already(folder, workshop.entries()))


def _finish(folder: Path, workshop: Workshop, *, overwrite: bool) -> BuildReport | None:
    """Put a set in place that was complete when the build was killed, and tidy up; None where there is none."""
    entries = workshop.entries()
    if not _is_done(folder, workshop):
        restore_set(workshop.set_folder, folder, entries)
        if not entries or listed_in(workshop.set_folder) != entries:
            return None
        put_in_place(workshop.set_folder, folder, overwrite=overwrite, unfinished=put_already(folder, entries))
    workshop.remove()
    return report_of(folder)


def _is_done(folder: Path, workshop: Workshop) -> bool:
    """Whether the set that the workshop has made is in place."""
    entries = workshop.entries()
    return bool(entries) and listed_in(folder) == entries


def _run(
    rows: list[Row],
    workshop: Workshop,
    preparation: Preparation,
    effort: Effort,
    workers: Workers,
    *,
    overwrite: bool,
) -> BuildReport | None:
    plan = workshop.read_plan()
    index, count = effort.part or (0, 1)
    chunks = range(plan.num_chunks * index // count, plan.num_chunks * (index + 1) // count)
    own_rows = min(chunks.stop * plan.rows_per_chunk, plan.num_rows) - chunks.start * plan.rows_per_chunk
    with Progress("preparing" if effort.part else "packing", max(own_rows, 0)) as progress:
        prepared = _prepared(rows, chunks, workshop, preparation, workers)
        if effort.part is None:
            assembly = Assembly(workshop.folder.parent, workshop, workers, overwrite=overwrite)
            return assembly.run(prepared, progress)
        for chunk in prepared:
            records = workshop.read_records(chunk)
            progress.advance(len(records), left_out=sum(bool(record.reason) for record in records))
    return None


def _prepared(
    rows: list[Row], chunks: range, workshop: Workshop, preparation: Preparation, workers: Workers
) -> Iterator[int]:
    """Numbers of chunks in order, each as soon as it is prepared."""
    step = workshop.read_plan().rows_per_chunk
    there = {chunk for chunk in chunks if workshop.has_chunk(chunk)}
    todo = (ChunkTask(n, tuple(rows[n * step : (n + 1) * step])) for n in chunks if n not in there)
    fresh = workers.in_order(partial(prepare_chunk, how=preparation), todo)
    for chunk in chunks:
        yield chunk if chunk in there else next(fresh)


def _ordered(
    places: Sequence[str], options: SourceOptions, seed: int | None, failed: Path | None, workshop: Workshop
) -> list[Row]:
    """The rows in the order in which they are packed."""
    rows = read_rows(places, options, workshop.inputs_folder)
    if failed is not None:
        rows = _only_failed(rows, failed)
    if seed is not None:
        Random(seed).shuffle(rows)
    return rows


def _only_failed(rows: list[Row], folder: Path) -> list[Row]:
    failed = failed_rows(folder)
    again = [row for row in rows if failed.get(row.number) == encodable(without_credentials(row.source))]
    if len(again) != len(failed):
        raise DataError(
            f"--retry-failed {folder} names {len(failed)} rows that failed, {len(again)} of which are in this INPUT; "
            "give the same INPUT as then"
        )
    return again


def _plan(rows: list[Row], places: Sequence[str], settings: BuildSettings, earlier: Earlier) -> Plan:
    against = tuple(str(place) for place in dict.fromkeys([*earlier.against, *filter(None, [earlier.failed])]))
    remote = sum(is_remote(row.image) for row in rows)
    names = [encodable(shown_name(place)) for place in places]
    digest, plain = hashlib.blake2b(digest_size=16), json.loads(json.dumps(asdict(settings)))
    digest.update(json.dumps([plain, against]).encode())
    for row in rows:
        digest.update(repr(row).encode("utf-8", "surrogateescape"))
    return Plan(
        fingerprint=digest.hexdigest(),
        num_rows=len(rows),
        rows_per_chunk=REMOTE_ROWS_PER_CHUNK if 2 * remote > len(rows) else ROWS_PER_CHUNK,
        source=names[0] if len(names) == 1 else names,
        settings=plain,
        against=against,
    )
