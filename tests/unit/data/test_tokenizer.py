from pathlib import Path

import pytest

from mmtrain.data.faults import DataError
from mmtrain.data.tokenizer import Tokenizer, check_tokenizer
from tests.unit.data.made import caption_of, train_tokenizer


def test_a_caption_is_framed_and_comes_back_as_text(tokenizer_path: Path):
    tokenizer = Tokenizer(tokenizer_path)
    ids = tokenizer.encode("a picture of red blue", 20)
    assert ids[0] == tokenizer.cls_id and ids[-1] == tokenizer.sep_id
    assert tokenizer.decode([*ids, tokenizer.pad_id, tokenizer.mask_id]) == "a picture of red blue"


def test_a_long_caption_is_cut_but_keeps_its_end_mark(tokenizer_path: Path):
    tokenizer = Tokenizer(tokenizer_path)
    whole = tokenizer.encode("a picture of red blue green", 99)
    assert tokenizer.encode("a picture of red blue green", 4) == [*whole[:3], tokenizer.sep_id]


def test_special_names_in_a_caption_are_plain_text(tokenizer_path: Path):
    ids = Tokenizer(tokenizer_path).encode("[MASK] [CLS]", 30)
    assert not {Tokenizer.mask_id, Tokenizer.cls_id, Tokenizer.pad_id} & set(ids[1:-1])


def test_a_file_that_is_no_tokenizer_is_refused_by_name(tmp_path: Path):
    (tmp_path / "x.model").write_bytes(b"junk")
    for path in (tmp_path / "x.model", tmp_path / "none.model", tmp_path):
        with pytest.raises(DataError, match="data.tokenizer"):
            Tokenizer(path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b"", "empty"),
        (b"\x1f\x8b\x08junk", "gunzip"),
        (b"<html>404</html>", "an HTML page"),
        (b"\x0a\xffjunk", "no sentencepiece model, or a damaged one"),
    ],
)
def test_what_is_no_tokenizer_is_named_for_what_it_is(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.model").write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.model', which is .*{kind}"):
        Tokenizer(tmp_path / "x.model")


def test_a_tokenizer_with_other_special_pieces_is_refused(tmp_path: Path):
    texts = [caption_of(number) for number in range(100)]
    path = train_tokenizer(tmp_path / "x.model", texts, control_symbols=[], bos_piece="<s>")
    with pytest.raises(DataError, match=r"first pieces are .*<s>.*wanted \[PAD\], \[UNK\], \[CLS\]"):
        Tokenizer(path)


def test_a_tokenizer_that_knows_too_few_pieces_is_refused(tokenizer_path: Path):
    tokenizer = Tokenizer(tokenizer_path)
    check_tokenizer(tokenizer, [caption_of(number) for number in range(300)], 0.05)
    with pytest.raises(DataError, match=r"data.tokenizer does not know .* data.max_unknown_share \(5.0%\)"):
        check_tokenizer(tokenizer, ["ein Bild von Ärger", "写真 です"], 0.05)


def test_only_the_first_captions_are_looked_at(tokenizer_path: Path):
    check_tokenizer(Tokenizer(tokenizer_path), ["a picture"] * 256 + ["写真"] * 999, 0.0)
