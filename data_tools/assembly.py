"""Makes shards of prepared chunks: takes them in order, has full shards packed, and writes what tells about the set."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from data_tools.accounting import Accounts
from data_tools.duplicates import SeenImages
from data_tools.left_out import LeftOut, Tally
from data_tools.pack import LEFT_OUT_NAME, MANIFEST_NAME, shard_path
from data_tools.parallel import Workers
from data_tools.progress import Progress
from data_tools.samples import SPLIT, ShardTask, pack_shard
from data_tools.selection import CutRules, Decision, Pick, Selection
from data_tools.survey import Survey
from data_tools.table import SampleTable, remember_kept
from data_tools.target import put_already, put_in_place
from data_tools.workshop import Plan, Workshop
from mmtrain.data.index import DataError, ShardEntry, index_path, read_manifest, write_manifest
from mmtrain.io.atomic import atomic_open


@dataclass(frozen=True)
class BuildReport:
    """What came of the input."""

    num_packed: int
    num_shards: int
    left_out: Tally  # samples
    losses: Tally  # captions and values of samples that are in the shards
    accounts: Accounts


def report_of(folder: Path) -> BuildReport:
    """What came of a build that is finished, as its manifest says."""
    manifest = read_manifest(folder)
    left_out, losses = (Tally(Counter(manifest.statistics[name])) for name in ("left_out", "left_out_of_samples"))
    accounts = Accounts.of(manifest.statistics)
    return BuildReport(manifest.num_samples, len(manifest.shards), left_out, losses, accounts)


class Assembly:
    """One build on its way from chunks to a finished folder."""

    def __init__(self, folder: Path, workshop: Workshop, workers: Workers, *, overwrite: bool = False) -> None:
        self._folder, self._workshop, self._workers, self._overwrite = folder, workshop, workers, overwrite
        self._set, self._put_already = workshop.set_folder, put_already(folder, workshop.entries())
        self._plan = workshop.read_plan()
        self._selection = Selection(CutRules(**self._plan.settings["cut"]), _seen_before(self._plan))
        self._survey, self._tally, self._losses, self._accounts = Survey(), Tally(), Tally(), Accounts()
        self._packing: dict[int, int] = {}  # shard -> the first chunk that it reads
        self._num_forgotten = 0  # chunks whose images are gone

    def run(self, chunks: Iterable[int], progress: Progress) -> BuildReport:
        """Pack everything; the set is complete before it is put in place, and that before the work is forgotten.

        `chunks`: their numbers from 0 on, each as soon as it is prepared.
        """
        self._set.mkdir(exist_ok=True)
        for partial_file in self._set.glob(".*.partial"):  # of a build that was killed
            partial_file.unlink(missing_ok=True)
        with atomic_open(self._set / LEFT_OUT_NAME) as left_out, SampleTable(self._set) as table:
            for chunk in chunks:
                num_before = len(self._tally)
                num_rows = self._take(chunk, table, left_out)
                progress.advance(num_rows, left_out=len(self._tally) - num_before)
            for picks in self._selection.rest():
                self._pack(picks)
            self._workers.finished(wait=True)
        return self._finish()

    def _take(self, chunk: int, table: SampleTable, left_out: BinaryIO) -> int:
        records = self._workshop.read_records(chunk)
        for decided in self._selection.take(chunk, records):
            if not isinstance(decided, Decision):
                self._pack(decided)
                continue
            table.add(decided)
            record = decided.record
            self._accounts.enter(record, apart=self._selection.rules.apart)
            if decided.shard is None:
                one = LeftOut(record.source, record.key, record.reason, record.detail)
                left_out.write(one.line())
                self._tally.add(one)
                continue
            for loss in record.losses:
                one = LeftOut(record.source, record.key, loss.reason, loss.detail, kept=True)
                left_out.write(one.line())
                self._losses.add(one)
        self._forget_images(chunk + 1)
        return len(records)

    def _pack(self, picks: Sequence[Pick]) -> None:
        """Have the shard just handed out packed, unless a build before this one did."""
        number = self._selection.num_shards - 1
        for pick in picks:
            self._survey.enter(pick.record.extension, pick.record.size, pick.captions)
        entry = self._workshop.read_entry(number)
        if entry and self._is_packed(shard_path(self._set, SPLIT, number), entry):
            return
        self._packing[number] = min(pick.chunk for pick in picks)
        work = partial(pack_shard, folder=self._set, work=self._workshop.folder)
        self._workers.begin(work, ShardTask(number, tuple(picks)))

    def _is_packed(self, path: Path, entry: ShardEntry) -> bool:
        """Whether a shard with its index is in the new set, or in its place already."""
        tar = path.name in self._put_already or (path.exists() and path.stat().st_size == entry.bytes)
        return tar and any(index_path(folder / path.name).exists() for folder in (self._set, self._folder))

    def _forget_images(self, num_taken: int) -> None:
        """Remove the images of chunks that no shard needs any more, so that the work takes little room."""
        for number in self._workers.finished():
            del self._packing[number]
        needed = min([num_taken, *self._packing.values(), *self._selection.held_chunks()])
        for chunk in range(self._num_forgotten, needed):
            self._workshop.forget_images(chunk)
        self._num_forgotten = needed

    def _finish(self) -> BuildReport:
        plan, num_shards = self._plan, self._selection.num_shards
        if not num_shards:
            if not (self._folder / MANIFEST_NAME).exists():  # an old set keeps its own tables
                put_in_place(self._set, self._folder, overwrite=self._overwrite)
            self._workshop.remove()
            raise DataError(_nothing(plan, self._tally))
        entries = [self._workshop.read_entry(number) for number in range(num_shards)]
        if not all(entries):
            raise RuntimeError("a shard was packed without a note of it")
        self._accounts.check(plan.num_rows, sum(entry.num_samples for entry in entries))
        self._survey.num_bytes = sum(entry.bytes for entry in entries)
        left_out = {"left_out": self._tally.counts(), "left_out_of_samples": self._losses.counts()}
        statistics = {**self._survey.record(), **self._accounts.record(), **left_out}
        write_manifest(self._set, entries, source=plan.source, settings=plan.settings, statistics=statistics)
        put_in_place(self._set, self._folder, overwrite=self._overwrite, unfinished=self._put_already)
        self._workshop.remove()
        return BuildReport(self._selection.num_samples, num_shards, self._tally, self._losses, self._accounts)


def _seen_before(plan: Plan) -> SeenImages:
    """What counts as seen before the first row."""
    near = plan.settings["cut"]["dedup"] == "near"
    seen = SeenImages(plan.settings["cut"]["near_bits"] if near else None)
    for place in plan.against:
        remember_kept(Path(place), seen, looks=near)
    return seen


def _nothing(plan: Plan, left_out: Tally) -> str:
    reasons = ", ".join(f"{reason} {count} times" for reason, count in left_out.counts().items())
    message = f"INPUT {plan.source} holds no usable pair of image and caption" + (f" ({reasons})" if reasons else "")
    first = left_out.first
    return message + (f"; the first is {first.source}: {first.detail or first.reason}" if first else "")
