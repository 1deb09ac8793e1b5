"""`mmdata tokenizer`: pieces, names at their ids, the same bytes twice."""

import json
from pathlib import Path
from random import Random

import pytest

from data_tools.captions import draw_wording, say
from data_tools.scenes import SceneRules, draw_scene
from data_tools.tokenizer import SPACE, read_texts, seed_pieces, train_tokenizer
from mmtrain.data.index import DataError
from tests.unit.data.made import write_tar


def captions(count: int) -> list[str]:
    rng = Random(0)
    return [say(draw_scene(rng, SceneRules()), draw_wording(rng, 2)) for _ in range(count)]


def test_every_word_of_a_small_vocabulary_is_one_piece(tmp_path):
    texts = captions(2000)
    tokenizer = train_tokenizer(texts, tmp_path / "a.model", 512)
    words = sorted({word.strip(",") for text in texts for word in text.split()})
    in_pieces = {word: len(tokenizer.encode(word, 32)) - 2 for word in words}
    assert set(in_pieces.values()) == {1}, in_pieces
    assert tokenizer.unknown_share(texts) == 0


def test_training_starts_from_the_parts_of_words_scored_by_how_much_text_they_cover():
    seeds = dict(seed_pieces(["Red ring", "a  ring"]))
    assert seeds[f"{SPACE}ring"] == 2 * 5 and seeds[f"{SPACE}red"] == 1 * 4 and seeds["ing"] == 2 * 3
    assert not any(SPACE in piece[1:] for piece in seeds)


def test_text_comes_back_in_lower_case_and_special_names_are_not_text(tmp_path):
    tokenizer = train_tokenizer(captions(500), tmp_path / "a.model", 512)
    ids = tokenizer.encode("A Small RED circle", 32)
    assert tokenizer.decode(ids) == "a small red circle"
    assert ids[0] == 2 and ids[-1] == 3
    assert tokenizer.mask_id not in tokenizer.encode("[MASK] [PAD]", 32)


def test_the_same_captions_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        train_tokenizer(captions(300), tmp_path / name, 200)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_text_in_several_scripts_keeps_to_the_vocabulary_size(tmp_path):
    texts = ["ein großer Hund läuft", "un chien court", "собака бежит", "犬が走る", "a dog runs, 17 times!"] * 40
    tokenizer = train_tokenizer(texts, tmp_path / "a.model", 120)
    assert tokenizer.num_pieces <= 120
    assert tokenizer.unknown_share(texts) == 0


def test_a_vocabulary_too_small_for_the_characters_names_the_least_that_works(tmp_path):
    with pytest.raises(DataError, match=r"--vocab-size is 10.* are \d+; raise it") as caught:
        train_tokenizer(captions(300), tmp_path / "a.model", 10)
    least = int(str(caught.value).split(" are ")[1].split(";")[0])
    assert train_tokenizer(captions(300), tmp_path / "a.model", least).num_pieces == least


def test_questions_and_answers_of_the_shards_are_texts_to_train_on(tmp_path: Path) -> None:
    one = {"question": "what is it?", "answers": ["a dog", "dog"], "answer": "dog"}
    said = {"questions": [one, {"question": "where?", "answer": "here"}, {"question": "how many?"}, "no question"]}
    shard = write_tar(
        tmp_path / "a.tar",
        {
            "k0": {"txt": b"a dog \n", "json": json.dumps(said).encode()},
            "k1": {"txt": b"a cat", "json": b"[1]"},
            "k2": {"txt": b" ", "json": b"{"},
        },
    )
    wanted = ["a dog", "what is it?", "a dog", "dog", "where?", "here", "how many?", "a cat"]
    assert list(read_texts([shard])) == wanted
