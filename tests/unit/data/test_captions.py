"""Samples with several captions: which one is read, when, and what stands for it."""

import json
from pathlib import Path

import pytest

from data_tools.records import Record
from data_tools.samples import sample_of
from data_tools.selection import Pick
from mmtrain.data.ids import id_of, name_of_caption
from mmtrain.data.stream import Stream
from tests.unit.data.made import caption_of, open_stream, picture, write_tar

NUM_SAMPLES, NUM_EPOCHS = 16, 40


def captions_of(number: int) -> list[str]:
    """Three captions, of which the last is the next sample's first."""
    return [caption_of(3 * number), caption_of(3 * number + 1), caption_of(3 * (number + 1))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, samples = tmp_path_factory.mktemp("captions"), {}
    for number in range(NUM_SAMPLES):
        record = Record(number, "", extension="jpg", size=(16, 16), original_size=(16, 16), image_id=str(number))
        samples[f"k{number:03d}"] = sample_of(
            Pick(record.key, 0, record, tuple(captions_of(number))), picture(number)
        ).files
    write_tar(folder / "set.tar", samples)
    return folder


def captions_read(stream: Stream, num_epochs: int = NUM_EPOCHS) -> dict[int, list[str]]:
    """The captions of each sample, epoch after epoch; what stands for one must be equal for equal ones alone."""
    read: dict[int, list[str]] = {number: [] for number in range(NUM_SAMPLES)}
    for step in range(num_epochs):
        order = stream.order.batch(step).tolist()
        rows = [
            (stream.tokenizer.decode(ids.tolist()), int(caption_id))
            for batch in stream.take(stream.num_micro_batches)
            for ids, caption_id in zip(batch.text_ids_BT, batch.caption_ids_B, strict=True)
        ]
        for sample, (caption, caption_id) in zip(order, rows, strict=True):
            read[sample].append(caption)
            assert caption_id == id_of(name_of_caption(caption))
    stream.close()
    return read


def test_the_first_caption_is_read_unless_any_is_asked_for(folder: Path, tokenizer_path: Path):
    for number, captions in captions_read(open_stream(folder, tokenizer_path), 3).items():
        assert set(captions) == {captions_of(number)[0]}


def test_any_caption_is_drawn_anew_in_every_epoch_alike_on_any_number_of_workers(folder: Path, tokenizer_path: Path):
    read = captions_read(open_stream(folder, tokenizer_path, caption="any"))
    for number, captions in read.items():
        assert set(captions) == set(captions_of(number))
        assert all(5 <= captions.count(caption) <= 25 for caption in captions_of(number))
    assert len({tuple(map(captions_of(n).index, captions)) for n, captions in read.items()}) == NUM_SAMPLES
    assert captions_read(open_stream(folder, tokenizer_path, caption="any", num_workers=2)) == read


def test_captions_that_are_no_texts_make_a_bad_sample(tmp_path: Path, tokenizer_path: Path):
    samples = {
        f"k{n:03d}": {"jpg": picture(n), "txt": b"a red", "json": json.dumps({"captions": n or [1]}).encode()}
        for n in range(16)
    }
    write_tar(tmp_path / "set.tar", samples)
    stream = open_stream(tmp_path, tokenizer_path, caption="any", max_bad_share=1.0)
    stream.take(stream.num_micro_batches)
    assert stream.num_bad == 16


def test_a_prompt_stands_before_every_caption_and_no_loss_asks_for_it(folder: Path, tokenizer_path: Path) -> None:
    plain, begun = (open_stream(folder, tokenizer_path, prompt=prompt) for prompt in ("", "red white"))
    for before, after in zip(plain.take(4), begun.take(4), strict=True):
        assert (before.prompt_lengths_B == 1).all() and (after.prompt_lengths_B == 3).all()
        assert (after.text_lengths_B - before.text_lengths_B == 2).all()
        for own, ids in zip(before.text_ids_BT.tolist(), after.text_ids_BT.tolist(), strict=True):
            assert plain.tokenizer.decode(ids) == f"red white {plain.tokenizer.decode(own)}"
