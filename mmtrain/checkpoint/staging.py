"""Memory of the host in which the tensors of a save stand still while the run goes on."""

import math
import mmap
import os
from collections.abc import Sequence

import torch

from mmtrain.parallel.slices import Slice

Parts = Sequence[tuple[Slice, torch.Tensor]]
FLOAT_BYTES = 4


class Staging:
    """Memory that processes see too which were forked off before it was filled; it has no name, and goes with the last.

    Made once for all saves of a run: fresh memory costs more than the copy.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("checkpoint")
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
        sizes = [math.prod(place.shape) for place in places]
        os.ftruncate(self._file, max(1, sum(sizes)) * FLOAT_BYTES)
        memory, start, self._places, self._copies = mmap.mmap(self._file, 0), 0, list(places), []
        for place, size in zip(places, sizes, strict=True):
            # A storage of its own each: of a tensor that is only a part of one, torch's writer makes another copy.
            flat = torch.frombuffer(memory, dtype=torch.float32, count=size, offset=start) if size else torch.empty(0)
            self._copies.append(flat.view(place.shape))
            start += size * FLOAT_BYTES

    @property
    def parts(self) -> list[tuple[Slice, torch.Tensor]]:
        """The rectangles as they were last copied."""
        return list(zip(self._places, self._copies, strict=True))
