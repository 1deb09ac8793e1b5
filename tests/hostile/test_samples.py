"""Samples as strangers make them: whatever is in one, it is one bad sample with a name, or it is read."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtrain.config.schema import DataConfig, MlmConfig
from mmtrain.data.faults import DataError
from mmtrain.data.heldout import HeldOut
from mmtrain.data.manifest import describe_shard, write_manifest
from mmtrain.data.questions import Asking
from mmtrain.data.sample_check import text_faults
from mmtrain.data.stream import Stream
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.scores.truth import as_scene
from tests.unit.data.made import MODEL, caption_of, files_of, open_stream, train_tokenizer, write_set, write_tar

NUM_SAMPLES, ODD = 16, 5  # one global batch of open_stream; the number of the sample that is odd
ODD_KEY = f"k{ODD:05d}"
HALF = "\\ud83d"

UNREADABLE_JSON = {
    "half an emoji as image_id": f'{{"image_id":"{HALF}"}}',
    "half an emoji as caption_id": f'{{"caption_id":"x{HALF}"}}',
    "half an emoji in captions": f'{{"captions":["a dog {HALF}"]}}',
    "half an emoji in a twin": f'{{"twin":{{"caption":"x {HALF}","kind":"k"}}}}',
    "half an emoji in a question": f'{{"questions":[{{"question":"what? {HALF}","answer":"x"}}]}}',
    "half an emoji in an answer": f'{{"questions":[{{"question":"what?","answer":"{HALF}"}}]}}',
    "half an emoji in other metadata": f'{{"a":{{"b":["{HALF}"]}}}}',
    "half an emoji in a name": f'{{"{HALF}":1}}',
    "the other half": '{"image_id":"\\udc00"}',
    "halves in the wrong order": '{"image_id":"\\udc00\\ud83d"}',
    "lists without an end": "[" * 100_000,
    "objects without an end": '{"a":' * 100_000,
    "many lists": "[" * 5000 + "]" * 5000,
    "many objects": '{"a":' * 5000 + "1" + "}" * 5000,
    "a brace": "{",
    "two values": '{"a":1}{"b":2}',
    "a word": "nothing",
    "single quotes": "{'a': 1}",
    "a comma too many": '{"a":1,}',
    "a control character": '{"a":"\n"}',
    "too many digits": f'{{"a":{"9" * 5000}}}',
    "no UTF-8": b'{"a":"\xff"}',
    "a surrogate in UTF-8": b'{"a":"\xed\xa0\xbd"}',
    "bytes of an image": b"\xff\xd8\xff\xe0" + bytes(50),
}
READABLE_JSON = {
    "an emoji": '{"image_id":"\\ud83d\\ude00"}',
    "nothing at all": "",
    "a list": "[1,2]",
    "a number": "5",
    "a text": '"text"',
    "null": "null",
    "NaN": '{"similarity":NaN}',
    "infinity": '{"similarity":-Infinity,"b":1e999}',
    "4,000 digits": f'{{"coco_id":{"9" * 4000}}}',
    "UTF-16": '{"a":"é"}'.encode("utf-16"),
    "UTF-8 with a mark": '{"a":"é"}'.encode("utf-8-sig"),
    "a list as image_id": '{"image_id":[1],"caption_id":{"a":1},"coco_id":[2]}',
    "a truth as image_id": '{"image_id":true,"caption_id":null,"coco_id":false}',
    "NUL": '{"image_id":"\\u0000"}',
    "a scene of words": '{"scene":["indoor","kitchen"]}',
    "a scene of numbers": '{"scene":[1,2]}',
    "a scene of people": '{"scene":[{"name":"a"},{"name":"b"}]}',
    "a scene that is a text": '{"scene":"indoor"}',
    "a scene that is an object": '{"scene":{"a":1,"b":2}}',
    "a twin that is a text": '{"twin":"his brother"}',
    "a twin without a caption": '{"twin":{"kind":"color"}}',
    "a twin whose caption is a number": '{"twin":{"caption":5,"kind":"color"}}',
    "a twin that is empty": '{"twin":{"caption":"","kind":""}}',
    "an empty list of captions": '{"captions":[]}',
    "nested a little": '{"a":' * 30 + "1" + "}" * 30,
}
UNREADABLE_TEXTS = {
    "no bytes": b"",
    "blanks": b" \t\r\n ",
    "latin-1": b"caf\xe9",
    "UTF-16": "a dog".encode("utf-16"),
    "half an emoji": b"a dog \xed\xa0\xbd",
    "an overlong code": b"\xc0\xaf",
    "cut in a letter": "é".encode()[:1],
}
READABLE_TEXTS = {
    "NUL": b"a\0b",
    "only NUL": b"\0",
    "escapes": b"\x1b[2J\x07",
    "separators": "a\u2028b\u0085c\x0cd".encode(),
    "zero width": "\u200b\u200d\ufeff".encode(),
    "from right to left": "\u202eabc".encode(),
    "private use": "\ue000\U0010ffff".encode(),
    "combining": ("a" + "\u0301" * 1000).encode(),
    "one long word": b"x" * 200_000,
    "emoji": "👨‍👩‍👧‍👦 🇩🇪".encode(),
    "specials": b"[CLS] [SEP] [PAD] [MASK] [UNK] <s> </s> <|endoftext|>",
}
ERRORS = [
    RecursionError("deep"), RuntimeError("Unable to cast"), MemoryError(), KeyError("x"), IndexError("i"),
    UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "no"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
    SyntaxError("not a TIFF"), EOFError(), OSError(5, "Input/output error"), TypeError("t"), AssertionError(),
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    captions = [caption_of(number) for number in range(200)]
    return train_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.model", captions)


def odd_set(folder: Path, **files: bytes | str) -> Path:
    """A set of one global batch in which one sample has other files."""
    content = {kind: one.encode() if isinstance(one, str) else one for kind, one in files.items()}
    return write_set(folder / "set", NUM_SAMPLES, {ODD: files_of(ODD) | content})


def heldout_of(folder: Path, tokenizer: Path, asking: Asking | None = None, **data: Any) -> HeldOut:
    config = DataConfig(heldout=str(folder), **({"max_bad_share": 0.5} | data))
    return HeldOut(config, MODEL, MlmConfig(), Tokenizer(tokenizer), seed=0, num_pairs=NUM_SAMPLES, asking=asking)


def taken(stream: Stream) -> int:
    """How many samples of one global batch have an image and a text."""
    batches = stream.take(4)
    stream.close()
    return sum(int((batch.has_image_B & batch.has_text_B).sum()) for batch in batches)


def check_is_one_bad_sample(folder: Path, tokenizer: Path, caplog: pytest.LogCaptureFixture, reason: str) -> None:
    """The stream and the held-out split name the sample once each and read all others."""
    with caplog.at_level(logging.WARNING, logger="mmtrain.data"):
        stream = open_stream(folder, tokenizer, max_bad_share=0.5)
        assert (taken(stream), stream.num_bad) == (NUM_SAMPLES - 1, 1)
        (batch,) = heldout_of(folder, tokenizer).batches(NUM_SAMPLES)
    assert (~(batch.has_image_B & batch.has_text_B)).nonzero().flatten().tolist() == [ODD]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2 and all(f": {ODD_KEY}: " in line and reason in line for line in lines), lines
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("name", UNREADABLE_JSON)
def test_json_that_cannot_be_read_is_one_bad_sample(
    name: str, tmp_path: Path, tokenizer_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = odd_set(tmp_path, json=UNREADABLE_JSON[name])
    check_is_one_bad_sample(folder, tokenizer_path, caplog, "its .json cannot be used: ")


@pytest.mark.parametrize("name", READABLE_JSON)
def test_json_of_other_people_is_only_metadata(name: str, tmp_path: Path, tokenizer_path: Path) -> None:
    folder = odd_set(tmp_path, json=READABLE_JSON[name])
    stream = open_stream(folder, tokenizer_path, max_bad_share=0.0)
    assert (taken(stream), stream.num_bad) == (NUM_SAMPLES, 0)
    split = heldout_of(folder, tokenizer_path, max_bad_share=0.0)
    (batch,) = split.batches(NUM_SAMPLES)
    assert bool((batch.has_image_B & batch.has_text_B).all())
    assert not any(split.twins) and split.references(ODD) == [caption_of(ODD)]
    assert as_scene(split.metadata(ODD).get("scene")) is None
    assert split.image_name(ODD) in (ODD_KEY, int("9" * 4000))


@pytest.mark.parametrize("name", [*UNREADABLE_JSON, *READABLE_JSON])
def test_what_verify_is_told_is_what_training_finds(name: str) -> None:
    content = (UNREADABLE_JSON | READABLE_JSON)[name]
    faults = text_faults(b"a dog", content.encode() if isinstance(content, str) else content)
    assert len(faults) == (name in UNREADABLE_JSON)


@pytest.mark.parametrize("name", UNREADABLE_TEXTS)
def test_a_caption_that_cannot_be_read_is_one_bad_sample(
    name: str, tmp_path: Path, tokenizer_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_is_one_bad_sample(odd_set(tmp_path, txt=UNREADABLE_TEXTS[name]), tokenizer_path, caplog, "its caption is ")
    assert len(text_faults(UNREADABLE_TEXTS[name], None)) == 1


@pytest.mark.parametrize("name", READABLE_TEXTS)
def test_a_caption_of_odd_signs_is_read(name: str, tmp_path: Path, tokenizer_path: Path) -> None:
    stream = open_stream(odd_set(tmp_path, txt=READABLE_TEXTS[name]), tokenizer_path, max_bad_share=0.0)
    assert (taken(stream), stream.num_bad) == (NUM_SAMPLES, 0)
    assert text_faults(READABLE_TEXTS[name], None) == []


@pytest.mark.parametrize("where", ["decode", "fit", "mask_tokens"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_any_error_of_one_sample_is_one_bad_sample(
    where: str,
    error: Exception,
    tmp_path: Path,
    tokenizer_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mmtrain.data import samples

    whole, calls = getattr(samples, where), []

    def failing(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == ODD + 1:
            raise error
        return whole(*args)

    monkeypatch.setattr(samples, where, failing)
    with caplog.at_level(logging.WARNING, logger="mmtrain.data"):
        stream = open_stream(write_set(tmp_path / "set", NUM_SAMPLES), tokenizer_path, max_bad_share=0.5)
        assert (taken(stream), stream.num_bad) == (NUM_SAMPLES - 1, 1)
    (line,) = [record.getMessage() for record in caplog.records]
    assert type(error).__name__ in line and "test_samples.py:" in line  # whose error it is stays to be seen


LOST_SPLITS: dict[str, tuple[Callable[[int], dict[str, bytes]], str]] = {
    "no caption": (lambda n: {"jpg": files_of(n)["jpg"]}, "has no caption"),
    "empty captions": (lambda n: files_of(n) | {"txt": b" "}, "its caption is empty"),
    "no image": (lambda n: {"txt": b"a picture"}, "has no image"),
    "empty images": (lambda n: files_of(n) | {"jpg": b""}, "its image is empty"),
    "cut images": (lambda n: files_of(n) | {"jpg": files_of(n)["jpg"][:200]}, "broken image"),
    "deep metadata": (lambda n: files_of(n) | {"json": b"[" * 5000}, "its .json cannot be used"),
}


@pytest.mark.parametrize("max_bad_share", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("name", LOST_SPLITS)
def test_a_held_out_split_that_is_lost_is_refused_at_once(
    name: str, max_bad_share: float, tmp_path: Path, tokenizer_path: Path
) -> None:
    make, reason = LOST_SPLITS[name]
    folder = write_set(tmp_path / "set", 20, {number: make(number) for number in range(20)})
    with pytest.raises(DataError, match=f"none of the 16 samples of data.heldout .*can be used(?s:.*){reason}"):
        heldout_of(folder, tokenizer_path, max_bad_share=max_bad_share)


@pytest.mark.parametrize("max_bad_share", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("name", LOST_SPLITS)
def test_a_run_that_read_no_sound_sample_fails_at_its_end(
    name: str, max_bad_share: float, tmp_path: Path, tokenizer_path: Path
) -> None:
    make, reason = LOST_SPLITS[name]
    folder = write_set(tmp_path / "set", 48, {number: make(number) for number in range(48)})
    stream = open_stream(folder, tokenizer_path, max_bad_share=max_bad_share)
    assert taken(stream) == 0
    with pytest.raises(DataError, match=f"none of the 16 samples of data.train .*can be used(?s:.*){reason}"):
        stream.check_at_end(lambda counts: counts)


def test_the_share_of_a_short_run_is_judged_at_its_end_over_all_ranks(tmp_path: Path, tokenizer_path: Path) -> None:
    folder = write_set(tmp_path / "set", 48, {number: {"txt": b"alone"} for number in range(0, 48, 4)})
    stream = open_stream(folder, tokenizer_path)
    stream.take(4)
    with pytest.raises(DataError, match="of 16 samples of data.train could not be used, more than data.max_bad_share"):
        stream.check_at_end(lambda counts: counts)
    stream.check_at_end(lambda counts: [counts[0], 1000 * counts[1]])  # a few of very many on other ranks
    again = open_stream(folder, tokenizer_path)
    again.restore(stream.state())
    again.take(4)
    again.check_at_end(lambda counts: counts)  # what went on has read 16 samples, which say little of the run


REPLACED = {
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "compressed with gzip": b"\x1f\x8b\x08" + bytes(100),
    "empty": b"",
    "an HTML page": b"<!DOCTYPE html><html>404</html>",
}


@pytest.mark.parametrize("kind", REPLACED)
def test_a_shard_that_is_another_than_the_manifest_says_is_refused(
    kind: str, tmp_path: Path, tokenizer_path: Path
) -> None:
    folder = write_set(tmp_path / "set", 48, shard=16)
    shards = sorted(folder.glob("*.tar"))
    entries = [describe_shard(shard, 16) for shard in shards]
    write_manifest(folder, entries, source=None, settings=None, statistics=None)
    shards[1].write_bytes(REPLACED[kind])
    wanted = (
        rf"set-000001.tar is {len(REPLACED[kind])} bytes long, but its manifest says {entries[1].bytes}; it is {kind}"
    )
    for opened in (open_stream, heldout_of):
        with pytest.raises(DataError, match=wanted):
            opened(folder, tokenizer_path)


def test_a_shard_cut_since_it_was_indexed_counts_what_it_lost(tmp_path: Path, tokenizer_path: Path) -> None:
    from mmtrain.data.index import scan_shard, write_index

    folder = write_set(tmp_path / "set", 80, shard=40)
    last = folder / "set-000001.tar"
    write_index(scan_shard(last))
    last.write_bytes(last.read_bytes()[:40_000])
    with pytest.raises(DataError, match=r"2\d of 80 samples of data.train .*max_bad_share \(0.1\)(?s:.*)is cut inside"):
        open_stream(folder, tokenizer_path, max_bad_share=0.1)
    open_stream(folder, tokenizer_path, max_bad_share=0.5)


def test_a_damaged_header_counts_the_samples_behind_it(tmp_path: Path, tokenizer_path: Path) -> None:
    shard = write_tar(tmp_path / "x.tar", {f"k{number:05d}": files_of(number) for number in range(80)})
    content = bytearray(shard.read_bytes())
    start = content.index(b"k00020.jpg")
    content[start : start + 8] = b"\xff" * 8
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"(59|6\d) of (79|8\d) samples of data.train(?s:.*)damaged header"):
        open_stream(shard, tokenizer_path, max_bad_share=0.1)


REFERENCES = {
    "one is empty": (["", "a cat"], ["a cat"]),
    "all are empty": (["", " "], [caption_of(ODD)]),
    "blanks around": ([" a cat\n"], ["a cat"]),
    "no list": ("a cat", [caption_of(ODD)]),
    "an object": ({"a": 1}, [caption_of(ODD)]),
    "null": (None, [caption_of(ODD)]),
    "a null among them": ([None, "a"], None),
    "a number among them": ([5, "a"], None),
    "a list among them": ([["x"]], None),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_references_are_texts_or_the_sample_is_left_out(
    name: str, tmp_path: Path, tokenizer_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    captions, wanted = REFERENCES[name]
    folder = odd_set(tmp_path, json=json.dumps({"captions": captions}))
    with caplog.at_level(logging.WARNING, logger="mmtrain.data"):
        found = heldout_of(folder, tokenizer_path).all_references()
    assert found[ODD] == wanted and found[0] == [caption_of(0)]
    is_named = wanted is None or "empty" in name
    assert [ODD_KEY in record.getMessage() for record in caplog.records] == [True] * is_named


def test_a_split_whose_references_are_no_texts_is_refused(tmp_path: Path, tokenizer_path: Path) -> None:
    spoilt = {n: files_of(n) | {"json": b'{"captions":[null]}'} for n in range(NUM_SAMPLES)}
    split = heldout_of(write_set(tmp_path / "set", NUM_SAMPLES, spoilt), tokenizer_path, max_bad_share=1.0)
    with pytest.raises(DataError, match="none of the 16 samples of data.heldout"):
        split.all_references()


THING = {"shape": "star", "color": "red", "size": "small", "cell": [0, 1]}
OTHER = THING | {"color": "blue", "cell": [1, 1]}
NO_SCENES: list[Any] = [
    None, 5, "indoor", {}, [], [THING], [THING, OTHER, OTHER], [1, 2], ["indoor", "kitchen"], [None, None], [[], []],
    [{"name": "a"}, {"name": "b"}], [THING, {}], [THING | {"more": 1}, OTHER], [THING | {"cell": 5}, OTHER],
    [THING | {"cell": [0]}, OTHER], [THING | {"cell": [0.5, 1]}, OTHER], [THING | {"cell": [True, 1]}, OTHER],
    [THING | {"cell": [-1, 0]}, OTHER], [THING | {"size": 5}, OTHER], [THING | {"size": "XL"}, OTHER],
    [THING | {"size": ["small"]}, OTHER], [THING | {"shape": None}, OTHER], [THING | {"color": ""}, OTHER],
]  # fmt: skip


@pytest.mark.parametrize("said", NO_SCENES, ids=lambda said: json.dumps(said)[:40])
def test_a_scene_that_is_not_in_our_form_is_not_judged(said: Any) -> None:
    assert as_scene(said) is None


def test_a_scene_in_our_form_is_judged() -> None:
    assert as_scene([THING, OTHER]) == [THING, OTHER]


@pytest.mark.parametrize(
    "said", [{"captions": [None]}, {"captions": "a"}, {"questions": "none"}, {"questions": [{"question": 5}]}], ids=str
)
def test_lists_that_a_run_could_not_read_are_named_by_verify(said: dict, tmp_path: Path) -> None:
    from data_tools.verify import Check, check_shard

    shard = write_tar(tmp_path / "x.tar", {"k": files_of(1) | {"json": json.dumps(said).encode()}})
    (fault,) = check_shard(Check(shard, None, False)).faults
    assert (fault.key, fault.reason) == ("k", *text_faults(b"a dog", json.dumps(said).encode()))


def test_questions_that_all_are_unusable_are_named_and_not_called_none(tmp_path: Path, tokenizer_path: Path) -> None:
    odd = {"json": b'{"questions":[{"question":5}]}'}
    folder = write_set(tmp_path / "set", NUM_SAMPLES, {n: files_of(n) | odd for n in range(NUM_SAMPLES)})
    with pytest.raises(DataError, match="none of the 16 samples of data.heldout (?s:.*)question without"):
        heldout_of(folder, tokenizer_path, Asking(4))
