"""Write one rank's rectangles into its file, and make all ranks' files one checkpoint."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemWriter, Metadata
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.storage import WriteResult

from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.checkpoint.files import HashedFile
from mmtrain.checkpoint.folders import drop_old, partial_of, point_to, put_in_place
from mmtrain.checkpoint.index import INDEX, TENSORS, encode_index
from mmtrain.checkpoint.manifest import Manifest
from mmtrain.checkpoint.planners import RectanglesOut
from mmtrain.checkpoint.staging import Parts
from mmtrain.io.atomic import sync_folder
from mmtrain.parallel.meeting import told_by_first, told_to_first


@dataclass(frozen=True)
class Written:
    """What one rank has written: where each rectangle lies, and what its file is."""

    results: list[WriteResult]
    files: dict[str, dict[str, Any]]


class _HashedFiles(FileSystem):
    """Files whose checksum is known when they are closed."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}

    @contextmanager
    def create_stream(self, path: str | PathLike[str], mode: str) -> Iterator[Any]:
        if mode != "wb":
            raise CheckpointError(f"{path} was to be opened as {mode!r}; a checkpoint's file is only written")
        with HashedFile(Path(path)) as file:
            yield file
        self.records[f"{TENSORS}/{Path(path).name}"] = file.record


def agree_on_rectangles(planner: RectanglesOut) -> Metadata | None:
    """The table of all ranks' rectangles, on the first rank; a CheckpointError on all where they do not tile the whole.

    Every rank must call it. It holds for every later save of the same engine.
    """
    plans = told_to_first(planner.create_local_plan())
    table, fault = None, ""
    if plans is not None:
        try:
            _, table = planner.create_global_plan(plans)
        except ValueError as found:
            fault = str(found)
    fault = told_by_first(fault)
    if fault:
        raise CheckpointError(f"the ranks' rectangles do not tile the model's tensors: {fault}")
    return table


def write_rank(folder: Path, parts: Parts, rank: int) -> Written:
    """Put this rank's rectangles into its own file under `folder`, and wait until it is on the disk."""
    return write_planned(folder, RectanglesOut(parts), rank)


def write_planned(folder: Path, planner: RectanglesOut, rank: int) -> Written:
    """The same of what a planner hands out when it is asked."""
    writer = FileSystemWriter(folder / TENSORS)
    writer.fs = files = _HashedFiles()
    # Its checksums would be counted while no other thread may run, the trainer's neither; ours are not.
    torch.serialization.set_crc32_options(False)
    writer.set_up_storage_writer(rank == 0, rank=rank, use_collectives=False)
    plan = writer.prepare_local_plan(planner.create_local_plan())
    results = writer.write_data(plan, planner).wait()
    return Written(results, files.records)


def commit(folder: Path, manifest: Manifest, table: Metadata, written: Sequence[Written]) -> None:
    """Make what all ranks have written a checkpoint: an index, a manifest, its name, and last `latest`."""
    partial = partial_of(folder)
    files = {name: record for rank in written for name, record in rank.files.items()}
    index = encode_index(table, [rank.results for rank in written])
    with HashedFile(partial / TENSORS / INDEX) as file:
        file.write(index.encode())
        file.sync()
    files[f"{TENSORS}/{INDEX}"] = file.record
    sync_folder(partial / TENSORS)
    replace(manifest, files=files).write(partial)
    put_in_place(partial, folder)
    point_to(folder)


def commit_and_tidy(
    folder: Path, manifest: Manifest, table: Metadata, written: Sequence[Written], *, keep_last: int, keep_every: int
) -> None:
    """`commit`, and then remove the checkpoints that are no longer to be kept."""
    commit(folder, manifest, table, written)
    drop_old(folder.parent, keep_last, keep_every)
