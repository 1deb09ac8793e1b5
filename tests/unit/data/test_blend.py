"""Blends of sets, sets of one modality, and streams that need no images."""

import json
from dataclasses import fields
from pathlib import Path
from random import Random

import pytest
import torch

from mmtrain.data.faults import DataError
from mmtrain.data.images import ImageError, check, decode
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.records import IGNORED_LABEL, Batch
from tests.unit.data.made import caption_of, files_of, open_stream, picture, write_set


def text_only(number: int) -> dict[str, bytes]:
    return {"txt": caption_of(number).encode()}


def image_only(number: int) -> dict[str, bytes]:
    return {"jpg": picture(number)}


@pytest.fixture(scope="session")
def three_sets(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("blend")
    pairs = write_set(folder / "pairs", 100)
    texts = write_set(folder / "texts", 40, {number: text_only(number) for number in range(40)})
    images = write_set(folder / "images", 30, {number: image_only(number) for number in range(30)})
    return [
        {"shards": str(pairs), "weight": 2},
        {"shards": str(texts), "weight": 1, "modality": "text"},
        {"shards": str(images), "weight": 1, "modality": "image"},
    ]


def take_all(stream: object, num_steps: int) -> Batch:
    batches = [batch for _ in range(num_steps) for batch in stream.take(4)]
    stream.close()
    return Batch(**{field.name: torch.cat([getattr(b, field.name) for b in batches]) for field in fields(Batch)})


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_blend_holds_its_sets_by_weight_and_sets_of_one_modality_are_not_bad(
    three_sets: list[dict], tokenizer_path: Path, num_workers: int
):
    stream = open_stream(three_sets, tokenizer_path, num_workers=num_workers, max_bad_share=0.0, trim=False)
    batch = take_all(stream, 32)
    assert stream.num_bad == 0
    has_both = batch.has_image_B & batch.has_text_B
    only_text, only_image = batch.has_text_B & ~has_both, batch.has_image_B & ~has_both
    assert [int(kind.sum()) for kind in (has_both, only_text, only_image)] == [256, 128, 128]
    assert not batch.images_BCHW[only_text].any() and (batch.image_ids_B[only_text] < 0).all()
    assert batch.images_BCHW[only_image].flatten(1).any(dim=1).all()
    assert not batch.text_lengths_B[only_image].any() and (batch.caption_ids_B[only_image] < 0).all()
    assert (batch.masked_labels_BT[only_image] == IGNORED_LABEL).all()
    tokenizer = Tokenizer(tokenizer_path)
    said = [tokenizer.decode(ids) for ids in batch.text_ids_BT[only_text].tolist()]
    for epoch in range(3):  # of the set of 40 texts
        assert sorted(said[40 * epoch : 40 * epoch + 40]) == sorted(caption_of(number) for number in range(40))


def test_a_text_set_ignores_its_images_and_an_image_set_its_captions(good_set: Path, tokenizer_path: Path):
    for modality, flags in (("text", (False, True)), ("image", (True, False))):
        sets = [{"shards": str(good_set), "modality": modality}]
        batch = take_all(open_stream(sets, tokenizer_path, trim=False), 2)
        assert (bool(batch.has_image_B.all()), bool(batch.has_text_B.all())) == flags
        assert (bool(batch.has_image_B.any()), bool(batch.has_text_B.any())) == flags


def test_a_text_set_without_a_caption_is_bad_all_the_same(tmp_path: Path, tokenizer_path: Path):
    folder = write_set(tmp_path / "s", 16, {3: image_only(3)})
    stream = open_stream([{"shards": str(folder), "modality": "text"}], tokenizer_path, max_bad_share=0.5)
    take_all(stream, 1)
    assert stream.num_bad == 1


def test_sets_without_weights_are_drawn_by_their_size(three_sets: list[dict], tokenizer_path: Path):
    sets = [{key: entry[key] for key in entry if key != "weight"} for entry in three_sets]
    batch = take_all(open_stream(sets, tokenizer_path, trim=False), 34)  # 544 places, 170 samples
    assert abs(int((batch.has_text_B & ~batch.has_image_B).sum()) - 128) <= 3


def test_a_weight_for_some_sets_only_is_refused(three_sets: list[dict], tokenizer_path: Path):
    with pytest.raises(DataError, match="give all of them one, or none"):
        open_stream([three_sets[0], three_sets[1]["shards"]], tokenizer_path)


def test_another_blend_does_not_go_on_with_the_state_of_this_one(three_sets: list[dict], tokenizer_path: Path):
    state = open_stream(three_sets, tokenizer_path).state()
    assert len(json.dumps(state)) < 1024
    for change in ({"weight": 3}, {"modality": "image_text"}):
        other = [three_sets[0], three_sets[1] | change, three_sets[2]]
        with pytest.raises(DataError, match="set_digest"):
            open_stream(other, tokenizer_path).restore(state)
    with pytest.raises(DataError, match="data.chunk_samples"):
        open_stream(three_sets, tokenizer_path, chunk_samples=8).restore(state)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_without_need_of_images_all_else_is_the_same(
    tmp_path: Path, three_sets: list[dict], tokenizer_path: Path, num_workers: int
):
    whole = picture(5, (90, 70))
    spoilt = {3: files_of(3) | {"jpg": b"no"}, 5: files_of(5) | {"jpg": whole[: len(whole) // 2]}, 7: text_only(7)}
    folder = write_set(tmp_path / "s", 64, spoilt)
    sets = [{"shards": str(folder), "weight": 1}, *three_sets[1:]]
    settings = {"max_bad_share": 0.5, "num_workers": num_workers, "flip": True, "min_crop_share": 0.5}
    streams = [open_stream(sets, tokenizer_path, needs_images=needed, **settings) for needed in (True, False)]
    for _ in range(8):
        for one, other in zip(*(stream.take(4) for stream in streams), strict=True):
            assert tuple(other.images_BCHW.shape) == (4, 3, 0, 0) and other.images_BCHW.dtype == torch.uint8
            for field in fields(Batch)[1:]:
                assert torch.equal(getattr(one, field.name), getattr(other, field.name)), field.name
    assert streams[0].num_bad == streams[1].num_bad >= 3
    assert streams[0].state() == streams[1].state()
    for stream in streams:
        stream.close()


def fate(function: object, content: bytes) -> bool:
    try:
        function(content)
    except ImageError:
        return False
    return True


def damaged(content: bytes, numbers: Random) -> bytes:
    """The file cut, with flipped bits, with bytes lost or repeated, or all of these."""
    spoilt = bytearray(content)
    for _ in range(numbers.randint(1, 3)):
        place = numbers.randrange(len(spoilt)) if numbers.random() < 0.6 else numbers.randrange(min(700, len(spoilt)))
        match numbers.randrange(4):
            case 0:
                spoilt[place] ^= 1 << numbers.randrange(8)
            case 1:
                del spoilt[place : place + numbers.randint(1, 40)]
            case 2:
                spoilt[place:place] = spoilt[place : place + numbers.randint(1, 40)]
            case _:
                spoilt = spoilt[: max(place, 8)] if numbers.random() < 0.5 else spoilt[:place] + spoilt[-2:]
    return bytes(spoilt) or b"\xff"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damage_is_seen_with_and_without_decoding_alike(kind: str):
    content, usable = picture(1, (64, 48), kind), 0
    for case in range(400):
        spoilt = damaged(content, Random(case))
        assert fate(check, spoilt) == (can := fate(decode, spoilt)), case
        usable += can
    # The cases try both; but every byte of a PNG is covered by a checksum.
    assert usable < 390 and (usable > 10 or kind == "PNG")
