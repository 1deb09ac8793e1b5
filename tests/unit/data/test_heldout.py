import json
from pathlib import Path

import pytest
import torch

from mmtrain.config.schema import DataConfig, MlmConfig
from mmtrain.data.faults import DataError
from mmtrain.data.heldout import HeldOut, Twin
from mmtrain.data.tokenizer import Tokenizer
from tests.unit.data.made import MODEL, caption_of, files_of, write_set


def with_twin(number: int) -> dict[str, bytes]:
    said = {"twin": {"caption": caption_of(number + 500), "kind": "color"}}
    return files_of(number) | {"json": json.dumps(said).encode()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    spoilt = {number: with_twin(number) for number in range(50)} | {7: files_of(7), 9: {"txt": b"a picture"}}
    return write_set(tmp_path / "heldout", 50, spoilt, shard=20)


def held_out(folder: Path, tokenizer: Path, num_pairs: int = 45, max_bad_share: float = 0.1) -> HeldOut:
    data = DataConfig(
        heldout=str(folder), max_bad_share=max_bad_share, flip=True, min_crop_share=0.2, shuffle_pairs=True
    )
    return HeldOut(data, MODEL, MlmConfig(), Tokenizer(tokenizer), seed=0, num_pairs=num_pairs)


@pytest.mark.parametrize(("dp", "batch_size"), [(1, 45), (1, 8), (2, 8), (4, 3)])
def test_what_ranks_gather_batch_by_batch_is_the_split_in_order(
    folder: Path, tokenizer_path: Path, dp: int, batch_size: int
):
    split = held_out(folder, tokenizer_path)
    (whole,) = split.batches(45, trim=False)
    by_rank = [list(split.batches(batch_size, dp=dp, dp_rank=rank, trim=False)) for rank in range(dp)]
    gathered = [batch for row in zip(*by_rank, strict=True) for batch in row]
    assert {len(batch.places_B) for batch in gathered} == {batch_size}
    for name in ("places_B", "images_BCHW", "text_ids_BT", "masked_ids_BT", "draws_B2", "image_ids_B", "has_text_B"):
        assert torch.equal(torch.cat([getattr(batch, name) for batch in gathered])[:45], getattr(whole, name)), name
    assert not torch.cat([batch.has_text_B for batch in gathered])[45:].any()


def test_captions_twins_and_images_are_at_hand_by_number(folder: Path, tokenizer_path: Path):
    split = held_out(folder, tokenizer_path)
    assert len(split) == 45
    assert split.captions[8] == caption_of(8) and split.twins[8] == Twin(caption_of(508), "color")
    assert split.twins[7] is None
    assert split.image(9) is None
    (batch,) = split.batches(45)
    assert torch.equal(split.image(8), batch.images_BCHW[8])
    assert (~batch.has_text_B).nonzero().flatten().tolist() == [9]


def test_twin_batches_differ_in_the_text_alone(folder: Path, tokenizer_path: Path):
    split, tokenizer = held_out(folder, tokenizer_path), Tokenizer(tokenizer_path)
    (true,), (false,) = split.batches(45), split.batches(45, twins=True)
    assert tokenizer.decode(false.text_ids_BT[8].tolist()) == caption_of(508)
    assert (~false.has_text_B).nonzero().flatten().tolist() == [7, 9]
    both = false.has_text_B
    assert torch.equal(true.images_BCHW[both], false.images_BCHW[both])
    assert not (true.caption_ids_B == false.caption_ids_B)[both].any()


def test_every_evaluation_sees_the_same(folder: Path, tokenizer_path: Path):
    split = held_out(folder, tokenizer_path)
    (first,), (second,) = split.batches(45), split.batches(45)
    assert torch.equal(first.masked_ids_BT, second.masked_ids_BT) and torch.equal(first.images_BCHW, second.images_BCHW)


def test_a_split_smaller_than_asked_is_used_whole(folder: Path, tokenizer_path: Path):
    assert len(held_out(folder, tokenizer_path, num_pairs=512)) == 50


def test_too_many_bad_heldout_samples_are_an_error(folder: Path, tokenizer_path: Path):
    with pytest.raises(DataError, match="1 of 45 samples of data.heldout"):
        list(held_out(folder, tokenizer_path, max_bad_share=0.0).batches(8))


@pytest.mark.parametrize("dp", [1, 2])
def test_made_pairs_join_the_image_of_one_sample_with_the_text_of_another(folder: Path, tokenizer_path: Path, dp: int):
    split, pairs = held_out(folder, tokenizer_path), [(1, 2), (1, 3), (4, 1), (9, 2), (2, 9)]
    (whole,) = split.batches(45, trim=False)
    by_rank = [list(split.paired(pairs, 3 // dp + 1, dp=dp, dp_rank=rank, trim=False)) for rank in range(dp)]
    gathered = [batch for row in zip(*by_rank, strict=True) for batch in row]
    images, texts = (list(column) for column in zip(*pairs[:3], strict=True))
    for names, wanted in ((("images_BCHW", "image_ids_B"), images), (("text_ids_BT", "text_lengths_B"), texts)):
        for name in names:
            found = torch.cat([getattr(batch, name) for batch in gathered])[:3]
            assert torch.equal(found, getattr(whole, name)[wanted]), name
    # Sample 9 has no image: neither its image nor its text makes a pair, and beyond the pairs the places are empty.
    assert not torch.cat([batch.has_text_B for batch in gathered])[3:].any()


def test_references_are_all_captions_and_images_have_the_name_that_servers_know(tmp_path: Path, tokenizer_path: Path):
    several = {"captions": ["a picture of red", "a picture of blue"], "coco_id": 42}
    spoilt = {1: files_of(1) | {"json": json.dumps(several).encode()}}
    split = held_out(write_set(tmp_path / "several", 3, spoilt), tokenizer_path, num_pairs=3)
    assert split.references(1) == several["captions"] and split.image_name(1) == 42
    assert split.references(0) == [caption_of(0)] and split.image_name(0) == "k00000"
