"""How torch.distributed.checkpoint writes and reads rectangles of whole tensors, whatever layout they come from."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    ReadItem,
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.parallel.slices import Slice


def _chunk(place: Slice) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(torch.Size(place.offset), torch.Size(place.shape))


class RectanglesOut(DefaultSavePlanner):
    """Offers this rank's (slice, tensor) pairs; all ranks' rectangles together tile every tensor."""

    def __init__(self, parts: Sequence[tuple[Slice, torch.Tensor]]) -> None:
        super().__init__()
        self._parts = {MetadataIndex(place.name, torch.Size(place.offset)): (place, part) for place, part in parts}

    def create_local_plan(self) -> SavePlan:
        self.plan = SavePlan([self._item(index, *part) for index, part in self._parts.items()], planner_data={})
        return self.plan

    @staticmethod
    def _item(index: MetadataIndex, place: Slice, part: torch.Tensor) -> WriteItem:
        data = TensorWriteData(
            chunk=_chunk(place),
            properties=TensorProperties.create_from_tensor(part),
            size=torch.Size(place.global_shape),
        )
        return WriteItem(index=index, type=WriteItemType.SHARD, tensor_data=data)

    def lookup_object(self, index: MetadataIndex) -> torch.Tensor:
        return self._parts[MetadataIndex(index.fqn, index.offset)][1]


class RectanglesIn(DefaultLoadPlanner):
    """Fills this rank's tensors in place, each from whichever rectangles of the checkpoint it overlaps."""

    def __init__(self, wanted: Mapping[Slice, torch.Tensor]) -> None:
        super().__init__()
        self._wanted = {(place.name, place.offset): (place, tensor) for place, tensor in wanted.items()}

    def create_local_plan(self) -> LoadPlan:
        faults = [fault for place, _ in self._wanted.values() if (fault := self._fault(place))]
        if faults:
            raise CheckpointError("the checkpoint does not fit this model:\n  - " + "\n  - ".join(faults))
        return LoadPlan([item for place, _ in self._wanted.values() for item in self._items(place)])

    def _fault(self, place: Slice) -> str | None:
        stored = self.metadata.state_dict_metadata.get(place.name)
        if stored is None:
            return f"{place.name} is not in it"
        if tuple(stored.size) != place.global_shape:
            return f"{place.name} is {tuple(stored.size)} in it and {place.global_shape} here"
        return None

    def _items(self, place: Slice) -> list[ReadItem]:
        return create_read_items_for_chunk_list(
            place.name, self.metadata.state_dict_metadata[place.name], [_chunk(place)]
        )

    def lookup_tensor(self, index: MetadataIndex) -> torch.Tensor:
        return self._wanted[index.fqn, tuple(index.offset)][1]

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        raise CheckpointError(
            f"{read_item.storage_index.fqn} holds bytes, not a tensor; the checkpoint is not mmtrain's"
        )

    def resolve_tensor(self, read_item: ReadItem) -> Any:
        whole = self.lookup_tensor(read_item.dest_index)
        for dim, (start, size) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            whole = whole.narrow(dim, start, size)
        return whole
