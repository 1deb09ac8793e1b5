"""Copies that a save is written from: made once, and the writer need not copy them again."""

import os

from mmtrain.checkpoint.staging import Staging
from mmtrain.parallel.slices import Slice

PLACES = [
    Slice("weight", (5, 3), (0, 0), (2, 3)),
    Slice("weight", (5, 3), (2, 0), (3, 3)),
    Slice("empty", (0,), (0,), (0,)),
]


def reserved() -> Staging:
    staging = Staging()
    staging.reserve(PLACES)
    return staging


def test_each_copy_is_the_whole_of_its_storage_so_that_the_writer_need_not_copy_it_again() -> None:
    for place, copy in reserved().parts:
        assert copy.shape == place.shape and copy.untyped_storage().nbytes() == copy.nbytes


def test_a_later_save_reuses_the_memory_of_the_first() -> None:
    staging = reserved()
    first = [copy.data_ptr() for _, copy in staging.parts]
    staging.reserve(PLACES)
    assert first == [copy.data_ptr() for _, copy in staging.parts]


def test_a_process_forked_off_before_there_was_any_room_sees_the_copies() -> None:
    staging = Staging()
    starts_out, starts_in = os.pipe()
    sums_out, sums_in = os.pipe()
    if not (pid := os.fork()):
        os.read(starts_out, 1)
        staging.find(PLACES)
        os.write(sums_in, str(sum(float(copy.sum()) for _, copy in staging.parts)).encode())
        os._exit(0)
    staging.reserve(PLACES)
    for _, copy in staging.parts:
        copy.fill_(2.0)
    os.write(starts_in, b"!")
    assert os.read(sums_out, 64) == b"30.0"
    os.waitpid(pid, 0)
