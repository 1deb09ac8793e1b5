"""Write and read a checkpoint: every tensor by its logical name and whole shape, cut however the ranks hold it."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import checkpoint

from mmtrain.checkpoint.manifest import LATEST, PARTIAL, Manifest, folder_of
from mmtrain.checkpoint.planners import CheckpointError, RectanglesIn, RectanglesOut
from mmtrain.parallel.slices import Slice

TENSORS = "tensors"


def save_checkpoint(
    checkpoints: Path, manifest: Manifest, parts: Iterable[tuple[Slice, torch.Tensor]], *, is_first: bool
) -> Path:
    """Write this rank's `parts`, and on the first rank the manifest; invisible until whole. Every rank must call it."""
    folder = folder_of(checkpoints, manifest.step)
    partial = folder.with_name(folder.name + PARTIAL)
    if is_first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    writer = checkpoint.FileSystemWriter(partial / TENSORS)
    checkpoint.save({}, storage_writer=writer, planner=RectanglesOut(list(parts)))
    if is_first:
        manifest.write(partial)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
        _point_to(checkpoints, folder)
    dist.barrier()
    return folder


def _point_to(checkpoints: Path, folder: Path) -> None:
    pointer = checkpoints / (LATEST + PARTIAL)
    pointer.write_text(folder.name + "\n")
    os.replace(pointer, checkpoints / LATEST)


def load_tensors(folder: Path, wanted: Mapping[Slice, torch.Tensor]) -> None:
    """Fill each tensor with its rectangle of the checkpoint in `folder`, whatever layout wrote it.

    CheckpointError names every tensor that is missing or has another shape. Every rank must call it.
    """
    reader = checkpoint.FileSystemReader(folder / TENSORS)
    try:
        checkpoint.load({}, storage_reader=reader, planner=RectanglesIn(wanted))
    except checkpoint.CheckpointException as failed:
        reasons = {str(reason) for reason, _ in failed.failures.values()}
        raise CheckpointError(f"{folder} cannot be loaded: {'; '.join(sorted(reasons))}") from None
