"""What one pipeline stage hands to the next: everything that exists at that depth, in one tensor of a fixed shape.

Axes: B samples, S image tokens, T text positions, R rows of the text or the fusion stack, E shared embedding, L length
of the packet, W its width.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from mmtrain.config.depth import reached
from mmtrain.config.schema import ModelConfig
from mmtrain.model.rows import Layout
from mmtrain.records import Features


@dataclass
class Flow:
    """What exists at one depth of the model."""

    image_SBH: torch.Tensor | None = None
    text_TRH: torch.Tensor | None = None  # the text stack's rows, then the fusion's
    features: Features = field(default_factory=Features)  # of ITC, and the temperature


@dataclass(frozen=True)
class Segment:
    """One tensor [length, kinds x B, width] inside a packet."""

    name: str
    length: int
    kinds: int
    width: int

    @property
    def rows(self) -> int:
        """How much of the packet's length it takes."""
        return self.length * self.kinds


@dataclass(frozen=True)
class PacketShape:
    """How the tensors of each boundary lie in a packet. `unit` ranks share the tokens under sequence parallelism."""

    model: ModelConfig
    layout: Layout
    num_image_tokens: int
    num_positions: int
    unit: int = 1

    @property
    def width(self) -> int:
        """The widest stack's width, at every boundary."""
        return max(self.model.hidden_size, self.model.vision_width, self.model.text_width)

    @property
    def length(self) -> int:
        """The longest boundary's length: the schedule wants one shape for all."""
        depth = sum(self._sizes)
        return max(sum(segment.rows for segment in self.segments(cut)) for cut in range(1, depth))

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return self.model.vision_layers, self.model.text_layers, self.model.fusion_layers

    def segments(self, depth: int) -> list[Segment]:
        """What lies at the boundary after `depth` layers of the flat list, in order."""
        done = reached(self._sizes, depth)
        in_fusion, text_ends = done["fusion"] > 0, done["text"] == self.model.text_layers
        image_width = self.model.hidden_size if in_fusion else self.model.vision_width
        image = Segment("image", self.num_image_tokens // self.unit, 1, image_width)
        if not done["text"]:
            return [image]
        features = Segment("features", 2 * self._rows_of_feature + 1, 1, self.width)
        if text_ends and not self.layout.fusion:
            return [features]
        kinds = self.layout.fusion if in_fusion else self.layout.text
        text_width = self.model.hidden_size if in_fusion else self.model.text_width
        text = Segment("text", self.num_positions // self.unit, len(kinds), text_width)
        return [image, text, *([features] if text_ends and "clean" in self.layout.text else [])]

    @property
    def _rows_of_feature(self) -> int:
        return -(-self.model.embedding_size // self.width)

    def pack(self, flow: Flow, depth: int, dtype: torch.dtype) -> torch.Tensor:
        """[L, B, W] of `dtype`, filled up with zeros."""
        parts = []
        for segment in self.segments(depth):
            tensor = self._features_out(flow.features) if segment.name == "features" else self._rows(flow, segment)
            parts.append(F.pad(tensor.to(dtype), (0, self.width - tensor.shape[-1])))
        packed = torch.cat(parts)
        return F.pad(packed, (0, 0, 0, 0, 0, self.length - packed.shape[0])).contiguous()

    def unpack(self, packet_LBW: torch.Tensor, depth: int) -> Flow:
        """What was packed at that boundary."""
        flow, start, num_samples = Flow(), 0, packet_LBW.shape[1]
        for segment in self.segments(depth):
            part = packet_LBW[start : start + segment.rows, :, : segment.width]
            start += segment.rows
            if segment.name == "features":
                flow.features = self._features_in(part)
                continue
            tensor = part.reshape(segment.length, segment.kinds * num_samples, segment.width)
            if segment.name == "image":
                flow.image_SBH = tensor
            else:
                flow.text_TRH = tensor
        return flow

    @staticmethod
    def _rows(flow: Flow, segment: Segment) -> torch.Tensor:
        tensor = flow.image_SBH if segment.name == "image" else flow.text_TRH
        return tensor.reshape(segment.rows, -1, segment.width)

    def _features_out(self, features: Features) -> torch.Tensor:
        image_BE, text_BE = features["image_BE"], features["text_BE"]
        spare = self._rows_of_feature * self.width - image_BE.shape[1]
        rows = [F.pad(part, (0, spare)).unflatten(1, (-1, self.width)) for part in (image_BE, text_BE)]
        temperature = features["temperature"].expand(image_BE.shape[0], 1, 1)
        return torch.cat([*rows, F.pad(temperature, (0, self.width - 1))], dim=1).transpose(0, 1)

    def _features_in(self, part: torch.Tensor) -> Features:
        rows, size = self._rows_of_feature, self.model.embedding_size
        # Copies: who keeps the features of many micro-batches must not keep their packets.
        image_BE, text_BE = (
            part[first : first + rows].transpose(0, 1).flatten(1)[:, :size].to(torch.float32, copy=True)
            for first in (0, rows)
        )
        # Every sample carries a copy, so that the gradients of all copies find their way back.
        return Features(
            image_BE=image_BE, text_BE=text_BE, temperature=part[-1, :, 0].float().mean(dim=0, keepdim=True)
        )
