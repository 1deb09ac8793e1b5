"""Another model's tokenizer serves a run: its special tokens where it has them, new ids where not."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from mmtrain.data.draws import Purpose, generator
from mmtrain.data.faults import DataError
from mmtrain.data.folder_tokenizer import FolderTokenizer, tokenizer_at
from mmtrain.data.masking import mask_tokens
from tests.unit.data.made import caption_of

CAPTIONS = [caption_of(number) for number in range(64)]


def made_folder(folder: Path, special: dict[str, str]) -> Path:
    """A word tokenizer with `special` tokens by role, in the files that transformers writes."""
    folder.mkdir(parents=True, exist_ok=True)
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token=special["unk_token"]))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.WordLevelTrainer(special_tokens=sorted(set(special.values())))
    model.train_from_iterator(CAPTIONS, trainer)
    model.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return folder


CLIP_LIKE = {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<end>", "unk_token": "<end>"}
SIGLIP_LIKE = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}


def test_a_text_begins_and_ends_with_the_folder_s_own_tokens(tmp_path: Path) -> None:
    tokenizer = FolderTokenizer(made_folder(tmp_path, CLIP_LIKE))
    ids = tokenizer.encode(CAPTIONS[5], 20)
    assert ids[0] == tokenizer.cls_id == tokenizer.pieces["[CLS]"] != tokenizer.sep_id == ids[-1]
    assert tokenizer.decode(ids) == CAPTIONS[5]
    assert len(tokenizer.encode(CAPTIONS[60], 4)) == 4 and tokenizer.encode(CAPTIONS[60], 4)[-1] == tokenizer.sep_id


@pytest.mark.parametrize(("special", "num_new"), [(CLIP_LIKE, 1), (SIGLIP_LIKE, 2)])
def test_what_the_folder_lacks_gets_ids_behind_its_last(tmp_path: Path, special: dict[str, str], num_new: int) -> None:
    tokenizer = FolderTokenizer(made_folder(tmp_path, special))
    size = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size()
    assert tokenizer.num_pieces == size + num_new
    assert tokenizer.mask_id == size + num_new - 1
    assert (tokenizer.cls_id == size) == (num_new == 2)


def test_only_parts_of_texts_are_masked_and_drawn(tmp_path: Path) -> None:
    tokenizer = FolderTokenizer(made_folder(tmp_path, CLIP_LIKE))
    ids = np.array(tokenizer.encode(CAPTIONS[60], 20))
    for row in range(200):
        shown, labels = mask_tokens(ids, 0.5, tokenizer.ordinary, tokenizer.mask_id, generator(0, Purpose.MASK, 0, row))
        assert shown[0] == ids[0] and shown[-1] == ids[-1]
        assert set(shown[labels >= 0]) - {tokenizer.mask_id} <= set(tokenizer.ordinary)
    assert not set(tokenizer.ordinary) & set(tokenizer.pieces.values())


def test_a_folder_without_a_tokenizer_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="where no tokenizer.json can be read"):
        tokenizer_at(tmp_path)


def test_pieces_that_are_unknown_are_counted(tmp_path: Path) -> None:
    tokenizer = FolderTokenizer(made_folder(tmp_path, SIGLIP_LIKE))
    assert tokenizer.unknown_share(CAPTIONS) == 0
    assert tokenizer.unknown_share(["a zebra"]) == 0.5
