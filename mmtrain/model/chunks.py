"""Several parts of the depth on one rank, for the interleaved schedule: chunk c of stage s is part c x pp + s."""

from collections.abc import Iterator
from typing import Any

import torch

from mmtrain.model.packet import PacketShape
from mmtrain.model.rows import Rows
from mmtrain.model.vlm import VisionLanguageModel
from mmtrain.records import Features


class Chunks(torch.nn.Module):
    """What one rank holds; each call runs one of its parts. Weights keep the names they have in the whole model."""

    def __init__(self, parts: list[VisionLanguageModel]) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(parts)

    def forward(self, rows: Rows, packet_LBW: torch.Tensor | None, chunk: int) -> Features | torch.Tensor:
        return self.parts[chunk](rows, packet_LBW)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
        for name, param in super().named_parameters(*args, **kwargs):
            yield name.split(".", 2)[2], param  # behind parts.N.

    def packet_shape(self, rows: Rows) -> PacketShape:
        """How a micro-batch travels between stages."""
        return self.parts[0].packet_shape(rows)

    @property
    def is_last(self) -> bool:
        """Whether the heads are here."""
        return self.parts[-1].is_last

    @property
    def last_draw(self) -> torch.Tensor | None:
        """The negatives that the last part with a fusion found of the last micro-batch."""
        return self.parts[-1].last_draw


StageModel = VisionLanguageModel | Chunks
