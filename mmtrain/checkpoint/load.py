"""Find a checkpoint that is whole, and read any rectangles of it."""

import logging
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch.distributed import checkpoint

from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.checkpoint.files import PARTIAL, faults_of
from mmtrain.checkpoint.folders import candidates
from mmtrain.checkpoint.index import TENSORS, IndexedReader
from mmtrain.checkpoint.manifest import Manifest, read_manifest
from mmtrain.checkpoint.planners import RectanglesIn
from mmtrain.parallel.meeting import rank_and_size, told_by_all
from mmtrain.parallel.slices import Slice

LOG = logging.getLogger("mmtrain.checkpoint")


class Found(NamedTuple):
    """A checkpoint that is whole."""

    folder: Path
    manifest: Manifest


def look_at(checkpoints: Path) -> Found | None:
    """The checkpoint that a run would go on from as far as names and sizes tell; this rank looks alone and in silence.

    None where there is none, or none that looks whole.
    """
    for folder in candidates(checkpoints):
        try:
            return Found(folder, checked(folder, hashes=False))
        except CheckpointError:
            continue
    return None


def find_whole(checkpoints: Path, *, hashes: bool = True) -> Found | None:
    """The checkpoint to go on from: `latest`, or where that is not whole the newest that is, which is said.

    Every byte is compared with its checksum, each by one of the ranks, or with `hashes` False only names and sizes;
    every rank must call it. None where there is no checkpoint; CheckpointError, which names every fault, where there
    are some but none is whole.
    """
    faults = []
    for folder in candidates(checkpoints):
        manifest, fault = _looked_at_by_all(folder, hashes)
        if not fault:
            if faults:
                LOG.warning("going on from %s, the newest checkpoint that is whole", folder)
            return Found(folder, manifest)
        LOG.warning("left out: %s", fault)
        faults.append(fault)
    if faults:
        raise CheckpointError(
            f"{checkpoints} holds no checkpoint that is whole:" + "".join(f"\n  - {f}" for f in faults)
        )
    return None


def find_or_refuse(checkpoints: Path, *, hashes: bool = True) -> Found:
    """As `find_whole`, but CheckpointError also where there is no checkpoint at all."""
    found = find_whole(checkpoints, hashes=hashes)
    if found is None:
        raise CheckpointError(f"{checkpoints} holds no checkpoint")
    return found


def checked(folder: Path, *, hashes: bool = True, part: int = 0, num_parts: int = 1) -> Manifest:
    """The manifest of a checkpoint; CheckpointError with every fault where the checkpoint is not whole.

    Of the contents, which `hashes` asks for, only every `num_parts`-th file is looked at.
    """
    if folder.name.endswith(PARTIAL):
        raise CheckpointError(f"{folder} is a save that was cut off half-written")
    manifest = read_manifest(folder)
    faults = list(faults_of(folder, manifest.files, hashes=hashes, part=part, num_parts=num_parts))
    if faults:
        raise CheckpointError(f"{folder} is not whole: {'; '.join(faults)}")
    return manifest


def _looked_at_by_all(folder: Path, hashes: bool) -> tuple[Manifest | None, str]:
    """The manifest, or the first fault that any rank found."""
    rank, size = rank_and_size()
    manifest, fault = None, ""
    try:
        manifest = checked(folder, hashes=hashes, part=rank, num_parts=size)
    except CheckpointError as found:
        fault = str(found)
    return manifest, next((said for said in told_by_all(fault) if said), "")


def load_tensors(folder: Path, wanted: Mapping[Slice, torch.Tensor]) -> None:
    """Fill each tensor with its rectangle of the checkpoint in `folder`, whatever layout wrote it.

    CheckpointError names every tensor that is missing or has another shape. Every rank must call it.
    """
    said = told_by_all(_fault_of(lambda: _read(folder, wanted)))
    faults = sorted({fault for fault in said if fault})
    if faults:
        raise CheckpointError(f"{folder} cannot be loaded: {'; '.join(faults)}")


def _read(folder: Path, wanted: Mapping[Slice, torch.Tensor]) -> None:
    reader = IndexedReader(folder / TENSORS)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # every rank reads by itself
        checkpoint.load({}, storage_reader=reader, planner=RectanglesIn(wanted), no_dist=True)


def _fault_of(work: Callable[[], None]) -> str:
    try:
        work()
    except checkpoint.CheckpointException as failed:
        return "; ".join(sorted({_first_line(reason) for reason, _ in failed.failures.values()}))
    except (CheckpointError, OSError, RuntimeError, ValueError, EOFError, KeyError) as fault:
        return str(fault) or type(fault).__name__
    return ""


def _first_line(reason: BaseException) -> str:
    """What a failure is: of what torch says of a file that is no plain tensor the advice to trust it is left out."""
    if isinstance(reason, CheckpointError):
        return str(reason)
    if isinstance(reason, pickle.UnpicklingError):
        return "a tensor file holds something else than plain tensors, which is not loaded"
    return str(reason).strip().partition("\n")[0] or type(reason).__name__
