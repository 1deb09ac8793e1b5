"""Copies that a save is written from: they stand still, are made once, and the writer need not copy them again."""

import torch

from mmtrain.checkpoint.staging import Staging
from mmtrain.parallel.slices import Slice


def parts_of(values: torch.Tensor) -> list[tuple[Slice, torch.Tensor]]:
    """Two rectangles of one tensor, cut out of one storage as an engine's states are."""
    top, bottom = values[:2], values[2:]
    return [
        (Slice("weight", (5, 3), (0, 0), (2, 3)), top),
        (Slice("weight", (5, 3), (2, 0), (3, 3)), bottom),
    ]


def test_copies_stay_as_they_were_when_the_run_goes_on() -> None:
    values = torch.arange(15.0).view(5, 3)
    copies = Staging().copies(parts_of(values))
    values.add_(100)
    assert torch.equal(torch.cat([copy for _, copy in copies]), torch.arange(15.0).view(5, 3))


def test_each_copy_is_the_whole_of_its_storage_so_that_the_writer_need_not_copy_it_again() -> None:
    for _, copy in Staging().copies(parts_of(torch.zeros(5, 3))):
        assert copy.untyped_storage().nbytes() == copy.nbytes


def test_a_later_save_reuses_the_memory_of_the_first() -> None:
    staging = Staging()
    staging.reserve(parts_of(torch.zeros(5, 3)))
    first = [copy.data_ptr() for _, copy in staging.copies(parts_of(torch.zeros(5, 3)))]
    assert first == [copy.data_ptr() for _, copy in staging.copies(parts_of(torch.ones(5, 3)))]
