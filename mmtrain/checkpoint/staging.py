"""Memory of the host in which the tensors of a save stand still while the run goes on."""

from collections.abc import Sequence

import torch

from mmtrain.parallel.slices import Slice

Parts = Sequence[tuple[Slice, torch.Tensor]]


class Staging:
    """A tensor for each rectangle of a save, made once: fresh memory costs more than the copy.

    Each has a storage of its own. Of a tensor that is only a part of a storage the writer makes another copy.
    """

    def __init__(self) -> None:
        self._copies: dict[Slice, torch.Tensor] = {}

    def reserve(self, parts: Parts) -> None:
        """Make room for the copies of `parts` now, so that the first save need not."""
        for place, values in parts:
            assert values.dtype == torch.float32, f"{place.name} is {values.dtype}, not float32"
            if place not in self._copies:
                # Written to once: until then the system has only promised these pages.
                self._copies[place] = torch.empty(place.shape, pin_memory=values.is_cuda).fill_(0.0)

    def copies(self, parts: Parts) -> list[tuple[Slice, torch.Tensor]]:
        """The same float32 rectangles on the host, which nobody changes until the next call."""
        self.reserve(parts)
        copied = [(place, self._copies[place].copy_(values, non_blocking=values.is_cuda)) for place, values in parts]
        if any(values.is_cuda for _, values in parts):
            torch.cuda.synchronize()
        return copied
