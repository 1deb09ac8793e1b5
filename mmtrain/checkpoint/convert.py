"""What a checkpoint holds, told without reading its tensors, and the same checkpoint written anew in another form."""

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorStorageMetadata

from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.checkpoint.folders import folder_of, partial_of
from mmtrain.checkpoint.index import TENSORS, read_index
from mmtrain.checkpoint.load import Found, checked, find_or_refuse, load_tensors
from mmtrain.checkpoint.manifest import versions_here
from mmtrain.checkpoint.planners import RectanglesOut
from mmtrain.checkpoint.write import agree_on_rectangles, commit, write_planned
from mmtrain.io.command import naming
from mmtrain.parallel.slices import Slice


@dataclass(frozen=True)
class Stored:
    """One tensor of a checkpoint."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    num_rectangles: int  # in which the ranks that wrote it held it

    @property
    def num_bytes(self) -> int:
        """Of its elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_weight(self) -> bool:
        """Whether it is a weight, not one of its moments."""
        return "/" not in self.name


def open_checkpoint(place: Path, *, hashes: bool) -> Found:
    """The checkpoint in a run folder, its `checkpoints`, or a checkpoint's own; every byte looked at with `hashes`.

    CheckpointError with every fault where it is not whole.
    """
    if (place / "checkpoints").is_dir():
        place = place / "checkpoints"
    if (place / TENSORS).is_dir() or (place / "manifest.json").exists():
        return Found(place, checked(place, hashes=hashes))
    if not place.is_dir():
        raise CheckpointError(f"{place} is no folder; name a run folder or a checkpoint in it")
    return find_or_refuse(place, hashes=hashes)


def stored_in(folder: Path) -> list[Stored]:
    """The tensors of a checkpoint, by name."""
    table = read_index(folder / TENSORS).state_dict_metadata
    return [
        Stored(name, tuple(entry.size), entry.properties.dtype, len(entry.chunks))
        for name, entry in sorted(table.items())
        if isinstance(entry, TensorStorageMetadata)
    ]


def convert(source: Found, checkpoints: Path, *, weights_only: bool, dtype: torch.dtype | None) -> Path:
    """The checkpoint `source` as one file among other `checkpoints`, one tensor in memory at a time.

    With `weights_only` without the moments: it can be scored and exported, not resumed. `dtype` is that of the
    weights, None as they are; moments stay as they are. CheckpointError where one of that step is there already.
    """
    folder = folder_of(checkpoints, source.manifest.step)
    if folder.exists():
        raise CheckpointError(f"{folder} is there already; name another folder")
    kept = [tensor for tensor in stored_in(source.folder) if tensor.is_weight or not weights_only]
    planner = _Reread(source.folder, kept, dtype)
    table = agree_on_rectangles(planner)
    if table is None:
        raise CheckpointError("a checkpoint is converted in one process; start it without a launcher")
    partial = partial_of(folder)
    with _removed_on_error(partial), naming(partial):
        partial.mkdir(parents=True, exist_ok=True)
        written = write_planned(partial, planner, rank=0)
        # The layout stays that of the run: what depended on it did so in its steps, not in who wrote this.
        commit(folder, replace(source.manifest, versions=versions_here()), table, [written])
    return folder


@contextmanager
def _removed_on_error(folder: Path) -> Iterator[None]:
    """Remove `folder`, and those above it that were not there before, where the block raises."""
    made = [above for above in (folder.parent, folder.parent.parent) if not above.exists()]
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another process has put something there since
            for above in made:
                above.rmdir()
        raise


class _Reread(RectanglesOut):
    """Whole tensors that are read from another checkpoint when they are to be written."""

    def __init__(self, folder: Path, kept: Sequence[Stored], dtype: torch.dtype | None) -> None:
        self._folder = folder
        self._dtypes = {tensor.name: (tensor.is_weight and dtype) or tensor.dtype for tensor in kept}
        super().__init__(
            [
                (
                    Slice.of_part(tensor.name, tensor.shape, None, 0, 1),
                    torch.empty(tensor.shape, dtype=self._dtypes[tensor.name], device="meta"),
                )
                for tensor in kept
            ]
        )

    def lookup_object(self, index: MetadataIndex) -> torch.Tensor:
        place, like = self._parts[MetadataIndex(index.fqn, index.offset)]
        tensor = torch.empty(like.shape, dtype=like.dtype)
        load_tensors(self._folder, {place: tensor})
        return tensor
