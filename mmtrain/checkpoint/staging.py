"""Memory of the host in which the tensors of a save stand still while the run goes on."""

import math
import mmap
import os
from collections.abc import Sequence
from itertools import accumulate

import torch

from mmtrain.parallel.device import pin
from mmtrain.parallel.slices import Slice

Parts = Sequence[tuple[Slice, torch.Tensor]]
FLOAT_BYTES = 4


class Staging:
    """Memory that processes see too which were forked off before it was filled; it has no name, and goes with the last.

    Made once for all saves of a run: fresh memory costs more than the copy.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("checkpoint")
        self._memory: mmap.mmap | None = None
        self._is_pinned = False
        self._places: list[Slice] = []
        self._copies: list[torch.Tensor] = []

    def reserve(self, places: Sequence[Slice]) -> None:
        """Make room for float32 copies of these rectangles, where there is none yet."""
        if list(places) == self._places:
            return
        self.find(places)
        for copy in self._copies:
            copy.fill_(0.0)  # written to once: until then the system has only promised these pages

    def find(self, places: Sequence[Slice]) -> None:
        """Know where another process, which reserves the same, puts its copies."""
        *starts, total = accumulate((math.prod(place.shape) for place in places), initial=0)
        os.ftruncate(self._file, max(1, total) * FLOAT_BYTES)
        self._memory, self._is_pinned = mmap.mmap(self._file, 0), False
        self._places = list(places)
        self._copies = [self._copy_at(start, place.shape) for start, place in zip(starts, places, strict=True)]

    def _copy_at(self, start: int, shape: tuple[int, ...]) -> torch.Tensor:
        """A tensor with a storage of its own: of one that is only a part of its storage torch's writer makes a copy."""
        size = math.prod(shape)
        if size == 0:
            return torch.empty(shape)
        return torch.frombuffer(self._memory, dtype=torch.float32, count=size, offset=start * FLOAT_BYTES).view(shape)

    def pin(self) -> None:
        """Lock the memory, where it is not yet, for copies from a GPU."""
        if self._memory is not None and not self._is_pinned:
            pin(self._memory)
            self._is_pinned = True

    @property
    def parts(self) -> list[tuple[Slice, torch.Tensor]]:
        """The rectangles as they were last copied."""
        return list(zip(self._places, self._copies, strict=True))
