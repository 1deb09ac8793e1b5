import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmtrain.data.faults import DataError
from mmtrain.data.stream import Stream
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.records import IGNORED_LABEL, Batch
from tests.unit.data.made import (
    MODEL,
    caption_of,
    files_of,
    open_stream,
    picture,
    train_tokenizer,
    write_set,
    write_tar,
)


def content(batches: Sequence[Batch]) -> list[bytes]:
    """Every sample of the batches in turn, bit for bit, texts padded to the same length."""
    samples = []
    for batch in batches:
        for row in range(len(batch.places_B)):
            parts = [getattr(batch, field.name)[row] for field in fields(batch)]
            wide = [
                torch.nn.functional.pad(part, (0, 20 - len(part))) if part.ndim == 1 and len(part) > 2 else part
                for part in parts
            ]
            samples.append(b"".join(part.numpy().tobytes() for part in wide))
    return samples


def global_batches(
    folder: Path, tokenizer: Path, dp: int, num_workers: int, steps: Sequence[int], **data: object
) -> list:
    """The content of global batches `steps[0]`..`steps[-1]`, put together from all ranks, in the order of places."""
    streams = [
        open_stream(folder, tokenizer, dp=dp, dp_rank=rank, num_workers=num_workers, **data) for rank in range(dp)
    ]
    try:
        for stream in streams:
            stream.restore(stream.state() | {"step": steps[0]})
        return [step_of(streams) for _ in steps]
    finally:
        for stream in streams:
            stream.close()


def step_of(streams: Sequence[Stream]) -> list[bytes]:
    by_rank = [stream.take(stream.num_micro_batches) for stream in streams]
    return content([batch for micro_batch in zip(*by_rank, strict=True) for batch in micro_batch])


AUGMENTED = {"min_crop_share": 0.5, "flip": True}


@pytest.mark.parametrize("dp", [1, 2, 4])
@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_global_batches_are_the_same_bit_for_bit_on_any_ranks_and_workers(
    good_set: Path, tokenizer_path: Path, dp: int, num_workers: int
):
    steps = range(5, 8)  # over the end of the first epoch
    one = global_batches(good_set, tokenizer_path, 1, 0, steps, **AUGMENTED)
    assert global_batches(good_set, tokenizer_path, dp, num_workers, steps, **AUGMENTED) == one


@pytest.mark.parametrize(("dp", "num_workers"), [(1, 0), (2, 1)])
def test_a_stream_restored_midway_on_other_ranks_continues_exactly(
    good_set: Path, tokenizer_path: Path, dp: int, num_workers: int
):
    whole = open_stream(good_set, tokenizer_path)
    undisturbed = [step_of([whole]) for _ in range(10)]
    first = open_stream(good_set, tokenizer_path, num_workers=1)
    for _ in range(4):
        first.take(4)
    saved = json.loads(json.dumps(first.state()))
    first.close()
    assert len(json.dumps(saved)) < 1024
    streams = [open_stream(good_set, tokenizer_path, dp=dp, dp_rank=r, num_workers=num_workers) for r in range(dp)]
    for stream in streams:
        stream.restore(saved)
    assert [step_of(streams) for _ in range(6)] == undisturbed[4:]
    assert {stream.state()["order_hash"] for stream in streams} == {whole.state()["order_hash"]}
    for stream in streams:
        stream.close()


def test_a_running_stream_can_be_taken_back(good_set: Path, tokenizer_path: Path):
    stream = open_stream(good_set, tokenizer_path, num_workers=1)
    start = stream.state()
    first = [step_of([stream]) for _ in range(2)]
    stream.restore(start)
    assert [step_of([stream]) for _ in range(2)] == first
    stream.close()


@pytest.mark.parametrize(
    ("changes", "knob"),
    [
        ({"seed": 4}, "seed"),
        ({"set_digest": "x"}, "data.train"),
        ({"global_batch_size": 32}, "train.global_batch_size"),
    ],
)
def test_a_state_of_another_order_is_refused(good_set: Path, tokenizer_path: Path, changes: dict, knob: str):
    stream = open_stream(good_set, tokenizer_path)
    with pytest.raises(DataError, match=knob):
        stream.restore(stream.state() | changes)


def test_an_epoch_delivers_every_sample_once_with_its_own_caption_and_image(good_set: Path, tokenizer_path: Path):
    stream, tokenizer = open_stream(good_set, tokenizer_path), Tokenizer(tokenizer_path)
    batches = [batch for _ in range(6) for batch in stream.take(4)]
    places = torch.cat([batch.places_B for batch in batches])
    assert places.tolist() == list(range(96))
    samples = stream.order.batch(0)
    first = batches[0]
    assert [tokenizer.decode(ids) for ids in first.text_ids_BT.tolist()] == [
        caption_of(number) for number in samples[:4]
    ]
    seen = [tokenizer.decode(ids) for batch in batches for ids in batch.text_ids_BT.tolist()]
    assert len(set(seen)) == 96
    reference = np.array([np.array(Image.open(io.BytesIO(picture(number)))) for number in samples[:4]])
    assert np.abs(first.images_BCHW.numpy().astype(int) - reference.transpose(0, 3, 1, 2)).max() <= 3


def test_texts_are_padded_to_the_longest_and_labels_only_stand_where_a_token_was_masked(
    good_set: Path, tokenizer_path: Path
):
    (batch, *_) = open_stream(good_set, tokenizer_path).take(4)
    assert batch.text_ids_BT.shape[1] % 8 == 0 or batch.text_ids_BT.shape[1] == MODEL.max_text_length
    positions = torch.arange(batch.text_ids_BT.shape[1])
    padded = positions >= batch.text_lengths_B[:, None]
    assert torch.equal(padded, batch.text_ids_BT == Tokenizer.pad_id)
    picked = batch.masked_labels_BT != IGNORED_LABEL
    assert picked.any(dim=1).all() and not (picked & padded).any()
    assert torch.equal(batch.masked_labels_BT[picked], batch.text_ids_BT[picked])
    assert torch.equal(batch.masked_ids_BT[~picked], batch.text_ids_BT[~picked])
    assert ((batch.draws_B2 >= 0) & (batch.draws_B2 < 1)).all()
    assert batch.draws_B2.unique().numel() == 8


def test_masks_and_crops_change_from_epoch_to_epoch(good_set: Path, tokenizer_path: Path):
    stream = open_stream(good_set, tokenizer_path, min_crop_share=0.5)
    by_sample = {}
    for step in range(12):
        batches = stream.take(4)
        for row, sample in enumerate(stream.order.batch(step).tolist()):
            batch = batches[row // 4]
            by_sample.setdefault(sample, []).append((batch.images_BCHW[row % 4], batch.draws_B2[row % 4]))
    both = [seen for seen in by_sample.values() if len(seen) == 2]
    assert len(both) > 80
    assert not any(torch.equal(draws, later_draws) for (_, draws), (_, later_draws) in both)
    # In so small an image two random crops may be the same one.
    assert np.mean([torch.equal(image, later_image) for (image, _), (later_image, _) in both]) < 0.2


def test_equal_images_and_captions_have_equal_ids(tmp_path: Path, tokenizer_path: Path):
    named = {"json": b'{"image_id": "cat", "caption_id": 7}'}
    spoilt = {1: files_of(1) | {"jpg": picture(0)}, 2: files_of(2) | {"txt": caption_of(0).encode()}}
    spoilt |= {number: files_of(number) | named for number in (3, 4)}
    stream = open_stream(write_set(tmp_path / "s", 16, spoilt), tokenizer_path)
    batches = stream.take(4)
    row_of = {sample: row for row, sample in enumerate(stream.order.batch(0).tolist())}
    images = torch.cat([batch.image_ids_B for batch in batches])[[row_of[sample] for sample in range(16)]].tolist()
    captions = torch.cat([batch.caption_ids_B for batch in batches])[[row_of[sample] for sample in range(16)]].tolist()
    assert images[0] == images[1] and captions[0] == captions[2]
    assert images[3] == images[4] and captions[3] == captions[4]
    assert len(set(images)) == len(set(captions)) == 14
    assert min(images + captions) >= 0


def test_shuffled_pairs_show_each_caption_with_another_image(good_set: Path, tokenizer_path: Path):
    plain = open_stream(good_set, tokenizer_path).take(4)
    shuffled = open_stream(good_set, tokenizer_path, shuffle_pairs=True).take(4)
    for one, other in zip(plain, shuffled, strict=True):
        assert torch.equal(one.text_ids_BT, other.text_ids_BT) and torch.equal(one.caption_ids_B, other.caption_ids_B)
        assert not (one.image_ids_B == other.image_ids_B).any()


SPOILT = {
    3: ({"txt": b"only a text"}, "has no image"),
    5: ({"jpg": picture(5)}, "has no caption"),
    7: (files_of(7) | {"jpg": b"no jpeg"}, "not a JPEG"),
    9: (files_of(9) | {"jpg": picture(9)[:200]}, "broken image"),
    11: (files_of(11) | {"txt": b"  \n"}, "caption is empty"),
    13: (files_of(13) | {"txt": b"\xff\xfe"}, "not UTF-8"),
    15: (files_of(15) | {"jpg": b""}, "image is empty"),
    17: (files_of(17) | {"json": b"{"}, "not JSON"),
}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_bad_samples_leave_their_places_empty_and_are_named(
    tmp_path: Path, tokenizer_path: Path, caplog: pytest.LogCaptureFixture, num_workers: int
):
    folder = write_set(tmp_path / "s", 96, {number: files for number, (files, _) in SPOILT.items()})
    stream = open_stream(folder, tokenizer_path, max_bad_share=0.5, num_workers=num_workers)
    with caplog.at_level(logging.WARNING, logger="mmtrain.data"):
        batches = [batch for _ in range(12) for batch in stream.take(4)]
    stream.close()
    assert (stream.num_bad, stream.num_read) == (16, 192)
    lines = [line for record in caplog.records if (line := record.getMessage()).startswith("left out: ")]
    assert len(lines) == 8  # the second epoch says nothing new
    for number, (_, reason) in SPOILT.items():
        assert any(f"set-{number // 40:06d}.tar: k{number:05d}: " in line and reason in line for line in lines)
    empty = torch.cat([~batch.has_text_B for batch in batches])
    orders = np.concatenate([stream.order.batch(step) for step in range(12)])
    assert set(orders[empty.numpy()].tolist()) == set(SPOILT)
    for batch in batches:
        gap = ~batch.has_image_B
        assert torch.equal(batch.has_image_B, batch.has_text_B) and not batch.text_lengths_B[gap].any()
        assert not batch.images_BCHW[gap].any() and not batch.text_ids_BT[gap].any()
        assert (batch.masked_labels_BT[gap] == IGNORED_LABEL).all() and (batch.image_ids_B[gap] < 0).all()


def test_too_many_bad_samples_stop_the_run_at_the_end_of_an_epoch(tmp_path: Path, tokenizer_path: Path):
    folder = write_set(tmp_path / "s", 32, {4: {"txt": b"alone"}})
    stream = open_stream(folder, tokenizer_path)
    stream.take(4)
    with pytest.raises(
        DataError, match=r"1 of 32 samples of data.train .*data.max_bad_share \(0.01\)[^$]*k00004: has no image"
    ):
        stream.take(4)


def test_a_share_of_bad_samples_is_judged_after_200_samples_and_not_before(tmp_path: Path, tokenizer_path: Path):
    folder = write_set(tmp_path / "s", 400, {number: {"txt": b"alone"} for number in range(0, 400, 5)}, shard=400)
    stream = open_stream(folder, tokenizer_path)
    for _ in range(12):
        stream.take(4)
    with pytest.raises(DataError, match="of 208 samples"):
        stream.take(4)


def test_a_share_below_the_limit_lets_the_run_go_on(tmp_path: Path, tokenizer_path: Path):
    stream = open_stream(write_set(tmp_path / "s", 32, {4: {"txt": b"alone"}}), tokenizer_path, max_bad_share=0.04)
    for _ in range(4):
        stream.take(4)
    assert stream.num_bad == 2


def test_a_cut_shard_counts_as_bad_once_over_all_ranks(tmp_path: Path, tokenizer_path: Path):
    folder = write_set(tmp_path / "s", 80)
    last = folder / "set-000001.tar"
    last.write_bytes(last.read_bytes()[:40_000])
    streams = [open_stream(folder, tokenizer_path, dp=2, dp_rank=rank) for rank in range(2)]
    assert [stream.num_bad for stream in streams] == [1, 0]
    assert 40 < streams[0].order.num_samples < 80


def test_a_tokenizer_of_another_language_is_refused_before_the_first_step(tmp_path: Path, good_set: Path):
    other = train_tokenizer(tmp_path / "x.model", ["写真 です", "これ は 写真"] * 20)
    with pytest.raises(DataError, match="data.tokenizer does not know"):
        open_stream(good_set, other)


def test_a_set_smaller_than_the_global_batch_is_refused(tmp_path: Path, tokenizer_path: Path):
    with pytest.raises(DataError, match="train.global_batch_size"):
        open_stream(write_set(tmp_path / "s", 15), tokenizer_path)


def test_a_set_of_webp_and_png_images_is_read(tmp_path: Path, tokenizer_path: Path):
    kinds = ("WEBP", "PNG", "JPEG")
    samples = {
        f"k{n:02d}": {"txt": caption_of(n).encode(), kinds[n % 3].lower(): picture(n, (40, 30), kinds[n % 3])}
        for n in range(16)
    }
    write_tar(tmp_path / "x.tar", samples)
    stream = open_stream(tmp_path, tokenizer_path)
    assert all(batch.has_image_B.all() for batch in stream.take(4))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_waiting_is_measured_since_it_was_last_asked_for(good_set: Path, tokenizer_path: Path, num_workers: int):
    stream = open_stream(good_set, tokenizer_path, num_workers=num_workers)
    stream.take(4)
    assert stream.wait_seconds > 0
    assert stream.wait_seconds == 0
    stream.close()


def test_a_stream_whose_reader_is_killed_gives_what_an_undisturbed_one_gives(good_set: Path, tokenizer_path: Path):
    with_readers, plain = (open_stream(good_set, tokenizer_path, num_workers=number) for number in (1, 0))
    others = children_of(os.getpid())
    for step in range(12):
        found, wanted = with_readers.take(4), plain.take(4)
        assert all(torch.equal(one.images_BCHW, other.images_BCHW) for one, other in zip(found, wanted, strict=True))
        assert all(torch.equal(one.text_ids_BT, other.text_ids_BT) for one, other in zip(found, wanted, strict=True))
        if step in (2, 7):
            os.kill(own_children(others)[0], signal.SIGKILL)
    assert with_readers.state() == plain.state()
    with_readers.close()


def test_a_global_batch_that_is_left_out_never_comes_and_the_next_moves_up(good_set: Path, tokenizer_path: Path):
    def places(stream: Stream, num_steps: int) -> list[int]:
        return [int(place) for _ in range(num_steps) for batch in stream.take(4) for place in batch.places_B]

    plain, other = (open_stream(good_set, tokenizer_path, num_workers=number) for number in (0, 1))
    wanted = places(plain, 8)
    size = len(wanted) // 8
    assert places(other, 2) == wanted[: 2 * size]
    before = other.state()
    assert places(other, 2) == wanted[2 * size : 4 * size]
    leapt = other.last_places()
    assert list(leapt) == wanted[3 * size : 4 * size]
    other.restore(before)
    other.leave_out(leapt)
    assert places(other, 3) == wanted[2 * size : 3 * size] + wanted[4 * size : 6 * size]
    assert other.state()["left_out"] == [3] and other.state()["step"] == 5
    assert other.names(other.last_places()[:1]) == plain.names([wanted[5 * size]])
    # Another process that goes on from there leaves it out too, and one that goes further back from here.
    third = open_stream(good_set, tokenizer_path, num_workers=0)
    third.restore(other.state())
    assert places(third, 1) == places(other, 1) == wanted[6 * size : 7 * size]
    assert third.state() == other.state()
    third.restore(before)
    assert places(third, 2) == wanted[2 * size : 3 * size] + wanted[4 * size : 5 * size]
    other.close()


def test_a_signal_to_the_whole_job_leaves_the_readers_to_the_trainer(good_set: Path, tokenizer_path: Path):
    others = children_of(os.getpid())
    stream = open_stream(good_set, tokenizer_path, num_workers=1)
    stream.take(4)
    readers = own_children(others)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(readers[0], number)
    for _ in range(20):
        stream.take(4)
    assert own_children(others) == readers
    stream.close()


def test_a_trainer_that_fails_without_closing_its_stream_ends_at_once(good_set: Path, tokenizer_path: Path):
    code = (
        "import sys; from pathlib import Path; from tests.unit.data.made import open_stream\n"
        "stream = open_stream(Path(sys.argv[1]), Path(sys.argv[2]), num_workers=2); stream.take(4)\n"
        "raise SystemExit(7)"
    )
    done = subprocess.run([sys.executable, "-c", code, good_set, tokenizer_path], timeout=30, capture_output=True)
    assert (done.returncode, done.stderr) == (7, b"")


def test_readers_end_with_close_and_with_the_death_of_the_trainer(good_set: Path, tokenizer_path: Path):
    others = children_of(os.getpid())
    stream = open_stream(good_set, tokenizer_path, num_workers=2)
    stream.take(4)
    readers = own_children(others)
    assert len(readers) == 2
    stream.close()
    assert not any(alive(reader) for reader in readers)
    code = (
        "import sys, time; from pathlib import Path; from tests.unit.data.made import open_stream\n"
        "stream = open_stream(Path(sys.argv[1]), Path(sys.argv[2]), num_workers=2); stream.take(4)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    trainer = subprocess.Popen(
        [sys.executable, "-c", code, good_set, tokenizer_path], stdout=subprocess.PIPE, text=True
    )
    assert trainer.stdout.readline() == "ready\n"
    readers = children_of(trainer.pid)
    assert len(readers) == 2
    trainer.kill()
    trainer.communicate()
    deadline = time.monotonic() + 60
    while any(alive(reader) for reader in readers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(reader) for reader in readers)


def own_children(others: list[int]) -> list[int]:
    """What this process started since it had only `others`: tests before this one may have left a tracker."""
    return [child for child in children_of(os.getpid()) if child not in others]


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_dropped_tail_is_listed_by_name_and_a_padded_one_by_its_empty_places(
    good_set: Path, tokenizer_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, logger="mmtrain.data")
    dropping = open_stream(good_set, tokenizer_path)
    for _ in range(6):
        dropping.take(4)
    (line,) = [record.getMessage() for record in caplog.records if "data.tail" in record.getMessage()]
    assert line.startswith("epoch 0: 4 samples dropped (data.tail): set-")
    assert all(f"k{sample:05d}" in line for sample in dropping.order.dropped(0))
    caplog.clear()
    padding = open_stream(good_set, tokenizer_path, tail="pad")
    batches = [batch for _ in range(7) for batch in padding.take(4)]
    assert torch.cat([batch.has_text_B for batch in batches]).tolist() == [True] * 100 + [False] * 12
    assert [record.getMessage() for record in caplog.records if "data.tail" in record.getMessage()] == [
        "epoch 0: 12 places padded at its end (data.tail)"
    ]
    assert padding.num_bad == 0
