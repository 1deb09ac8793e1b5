"""Texts that spell out control tokens: in training and in the exported model they are the same ordinary pieces."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from mmtrain.data.faults import DataError
from mmtrain.data.folder_tokenizer import FolderTokenizer, tokenizer_at
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.hf.configuration import VLBertConfig
from mmtrain.hf.tokenization import VLBertTokenizer, tokenizer_of_folder
from tests.unit.data.made import caption_of, train_tokenizer

CAPTIONS = [caption_of(number) for number in range(200)]
LENGTH = 40
SPECIALS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<pad>", "<unk>", "<mask>", "<|startoftext|>",
    "<|endoftext|>", "<image>", "[sep]", "[ SEP]", "[SEP", "SEP]", "[[SEP]]", "<|ENDOFTEXT|>", "▁[SEP]▁",
]  # fmt: skip
TEXTS = [
    "a sign that says [SEP] and [MASK]", "x[SEP]y", "[CLS][SEP]", "[SEP] [SEP] [SEP]", "<|endoftext|> a cat",
    "a picture of red<|endoftext|>", "<s>a picture</s>", "<s> <pad> <mask> <unk>", "[UNK] red", "a <image> of red",
    " [PAD] ", "[\u200bSEP]", "[SEP]\n[SEP]", "\uff3bSEP\uff3d", "\uff1cs\uff1e", "<|EndOfText|>", "",
]  # fmt: skip
ROLES_OF: dict[str, dict[str, Any]] = {
    "clip": {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
             "unk_token": "<|endoftext|>"},
    "siglip": {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"},
    "bert": {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]",
             "mask_token": {"content": "[MASK]", "lstrip": True}},
    "words": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
    "stable diffusion": {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "!",
                         "unk_token": "<|endoftext|>"},
}  # fmt: skip


def made_folder(folder: Path, kind: str) -> Path:
    """A small tokenizer of the kind, in the files that transformers writes."""
    roles = ROLES_OF[kind]
    names = sorted({one if isinstance(one, str) else one["content"] for one in roles.values()} - {"!"})
    names.append("<image>")
    if kind in ("clip", "stable diffusion"):
        model = tokenizers.Tokenizer(models.BPE(unk_token="<|endoftext|>"))
        model.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(special_tokens=names, vocab_size=400, initial_alphabet=alphabet)
    elif kind == "siglip":
        model = tokenizers.Tokenizer(models.Unigram())
        model.normalizer = normalizers.NFKC()
        model.pre_tokenizer = pre_tokenizers.Metaspace()
        model.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(special_tokens=names, vocab_size=80, unk_token="<unk>")
    elif kind == "bert":
        model = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        model.normalizer = normalizers.BertNormalizer()
        model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(special_tokens=names, vocab_size=120)
    else:
        model = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
        model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(special_tokens=names)
    model.train_from_iterator(CAPTIONS, trainer)
    folder.mkdir(parents=True)
    model.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    return folder


def exported(path: Path) -> Any:
    """The Hugging Face tokenizer of a run whose tokenizer lies at `path`."""
    if path.is_file():
        return VLBertTokenizer(str(path), model_max_length=LENGTH)
    own = FolderTokenizer(path)
    config = VLBertConfig(
        pad_token_id=own.pad_id, unk_token_id=own.unk_id, bos_token_id=own.cls_id, eos_token_id=own.sep_id,
        mask_token_id=own.mask_id, max_text_length=LENGTH,
    )  # fmt: skip
    return tokenizer_of_folder(path, config)


@pytest.fixture(scope="module", params=["sentencepiece", *ROLES_OF])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """A run's tokenizer, the exported one, and that saved and loaded again."""
    place = tmp_path_factory.mktemp("tokenizers")
    if request.param == "sentencepiece":
        path = train_tokenizer(place / "tokenizer.model", CAPTIONS)
    else:
        path = made_folder(place / "folder", request.param)
    there = exported(path)
    there.save_pretrained(place / "saved")
    return tokenizer_at(path), there, type(there).from_pretrained(place / "saved")


def check_is_the_same(both: tuple[Any, Any, Any], text: str) -> None:
    """All three give the same ids, of which none but the outer two is a control token."""
    own, *others = both
    ids = own.encode(text, LENGTH)
    for other in others:
        assert other(text, truncation=True, max_length=LENGTH)["input_ids"] == ids, text
    control = {own.cls_id, own.sep_id, own.mask_id, own.pad_id} - {_id_of("!", own)}
    assert ids[0] == own.cls_id and ids[-1] == own.sep_id
    assert not control & set(ids[1:-1]), text


def _id_of(piece: str, tokenizer: Any) -> int | None:
    return None if isinstance(tokenizer, Tokenizer) else tokenizer._model.token_to_id(piece)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_spells_control_tokens_is_the_same_pieces(both: tuple[Any, Any, Any], text: str) -> None:
    check_is_the_same(both, text)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([*SPECIALS, " ", "a", "red", "picture of", "é", "\n"]) | st.text(max_size=6), max_size=8)
)
def test_random_texts_with_control_tokens_are_the_same_pieces(both: tuple[Any, Any, Any], parts: list[str]) -> None:
    check_is_the_same(both, "".join(parts).encode(errors="ignore").decode())


def test_batches_and_pairs_are_cut_from_the_same_pieces(both: tuple[Any, Any, Any]) -> None:
    own, *others = both
    for other in others:
        rows = other(TEXTS, padding=True, truncation=True, max_length=LENGTH)
        for text, ids, mask in zip(TEXTS, rows["input_ids"], rows["attention_mask"], strict=True):
            assert ids[: sum(mask)] == own.encode(text, LENGTH)
        question, answer = "what is [SEP]?", "<|endoftext|> [MASK]"
        joined = [*own.encode(question, LENGTH), *own.encode(answer, LENGTH)[1:]]
        assert other(question, answer)["input_ids"] == joined


def test_ordinary_captions_come_back(both: tuple[Any, Any, Any]) -> None:
    own = both[0]
    for caption in CAPTIONS[:30]:
        ids = own.encode(caption, LENGTH)
        assert own.decode(ids) == caption and own.unk_id not in ids[1:-1]


def test_a_model_whose_control_tokens_are_words_is_refused(tmp_path: Path) -> None:
    changes = {"control_symbols": [], "user_defined_symbols": ["[MASK]"]}
    path = train_tokenizer(tmp_path / "tokenizer.model", CAPTIONS, **changes)
    with pytest.raises(DataError, match=r"whose \[MASK\] are parts of texts; wanted control symbols"):
        Tokenizer(path)
