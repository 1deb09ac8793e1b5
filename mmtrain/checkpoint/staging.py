"""Memory of the host in which the tensors of a save stand still while the run goes on."""

import math
from collections.abc import Sequence

import torch

from mmtrain.parallel.slices import Slice


class Staging:
    """One buffer that all copies of a save fit into, made once: fresh memory costs more than the copy."""

    def __init__(self) -> None:
        self._buffer: torch.Tensor | None = None

    def reserve(self, parts: Sequence[tuple[Slice, torch.Tensor]]) -> None:
        """Make room for the copies of `parts` now, so that the first save need not."""
        numel = sum(math.prod(place.shape) for place, _ in parts)
        if self._buffer is None or self._buffer.numel() < numel:
            is_on_gpu = any(values.is_cuda for _, values in parts)
            # Written to once: until then the system has only promised these pages.
            self._buffer = torch.empty(numel, pin_memory=is_on_gpu).fill_(0.0)

    def copies(self, parts: Sequence[tuple[Slice, torch.Tensor]]) -> list[tuple[Slice, torch.Tensor]]:
        """The same float32 rectangles on the host, which nobody changes until the next call."""
        self.reserve(parts)
        sizes = [math.prod(place.shape) for place, _ in parts]
        is_on_gpu = any(values.is_cuda for _, values in parts)
        pieces = self._buffer[: sum(sizes)].split(sizes)
        copied = []
        for (place, values), piece in zip(parts, pieces, strict=True):
            assert values.dtype == torch.float32, f"{place.name} is {values.dtype}, not float32"
            copied.append((place, piece.view(place.shape).copy_(values, non_blocking=is_on_gpu)))
        if is_on_gpu:
            torch.cuda.synchronize()
        return copied
