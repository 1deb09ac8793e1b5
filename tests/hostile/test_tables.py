"""Tables and annotations as they come: each row is kept with its captions or rejected by name, and sums agree."""

import io
import json
import os
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from data_tools.build import BuildSettings, build_shards
from data_tools.cli import main
from data_tools.pack import Sample, write_shard
from data_tools.rows import Columns
from data_tools.selection import CutRules
from data_tools.sources import SourceOptions
from data_tools.verify import verify_shards
from mmtrain.data.index import DataError, find_shards, open_index, read_manifest, read_part
from mmtrain.data.question_schema import parse_questions
from mmtrain.io.json_text import strict_json

Rejects = list[tuple[str, str]]


def picture(level: int) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (12, 8), (level, 80, 160)).save(written, "PNG")
    return written.getvalue()


@pytest.fixture(scope="module")
def pics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pics")
    for number in range(4):
        (folder / f"{number}.png").write_bytes(picture(number))
    return folder


class Built:
    """What a build made of one input."""

    def __init__(self, place: Path, root: Path, apart: bool = False, **options: Any) -> None:
        out = place.parent / "out"
        settings = BuildSettings(cut=CutRules(apart=apart))
        self.report = build_shards([str(place)], out, settings, options=SourceOptions(image_root=str(root), **options))
        lines = [json.loads(line) for line in (out / "left_out.jsonl").read_bytes().splitlines()]
        self.rejected = [(one["source"], one["reason"]) for one in lines if not one["kept"]]
        self.lost = [(one["source"], one["reason"], one["detail"]) for one in lines if one["kept"]]
        self.captions: list[list[str]] = []
        self.facts: list[dict[str, Any]] = []
        for shard in find_shards([str(out)]):
            for parts in open_index(shard).parts:
                facts = strict_json(read_part(shard, parts["json"]))
                text = [read_part(shard, parts["txt"]).decode()] if "txt" in parts else []
                self.captions.append(facts.get("captions", text))
                self.facts.append(facts)
        assert verify_shards([str(out)], 1).faults == ()
        self.statistics = read_manifest(out).statistics
        self._check_sums()

    def _check_sums(self) -> None:
        rows, captions = self.statistics["rows"], self.statistics["captions"]
        assert rows["read"] == rows["written"] + rows["rejected"]
        assert captions["read"] == captions["written"] + captions["rejected"] + captions["repeated"]
        assert len(self.rejected) == rows["rejected"] == sum(self.statistics["left_out"].values())
        assert len(self.lost) == sum(self.statistics["left_out_of_samples"].values())
        assert captions["written"] == sum(map(len, self.captions))


def write(folder: Path, name: str, content: bytes | str | Any) -> Path:
    if not isinstance(content, bytes | str):
        content = json.dumps(content)
    place = folder / name
    place.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return place


GOOD = "0.png,good"
NO_ROW, NOT_UTF8, NOT_TEXT = "not a row of the table", "not UTF-8 text", "caption is not text"
CSV_ROWS = {
    "more fields": ("1.png,a red card, on a table", NO_ROW),
    "many more fields": ("1.png," + "x," * 50, NO_ROW),
    "fewer fields": ("1.png", NO_ROW),
    "quote behind a space": ('1.png, "a red card, big"', NO_ROW),
    "text behind the quote": ('1.png,"a" b', NO_ROW),
    "quote closed in the middle": ('1.png,"a"b"c"', NO_ROW),
    "NUL in the caption": ("1.png,a\0b", NO_ROW),
    "NUL in the name": ("1\0.png,ab", NO_ROW),
    "Latin-1": (b"1.png,caf\xe9", NOT_UTF8),
    "surrogate as CESU-8": (b"1.png,\xed\xa0\xbd", NOT_UTF8),
    "cut character": (b"1.png,\xe2\x82", NOT_UTF8),
    "bad name": (b"\xff.png,x", NOT_UTF8),
    "a field of 17 million characters": ("1.png," + "x" * (1 << 24 | 1), NO_ROW),
    "a caption above 1 MiB": ("1.png," + "x " * (1 << 19) + "x", "caption too long"),
    "no caption": ("1.png,", "missing caption"),
    "no name": (",x", "missing image"),
    "a caption of signs without width": ("1.png,\u200b\u200b", "missing caption"),
    "brackets that are no host": ("http://[::1/a.jpg,x", "malformed address"),
    "an unknown kind of address": ("ttp://x.y/a.jpg,x", "malformed address"),
    "a drive": ("C://photos/a.jpg,x", "malformed address"),
    "no such file": ("nowhere.png,x", "missing file"),
    "a name too long": ("n" * 5000 + ".png,x", "file cannot be read"),
}


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("kind", CSV_ROWS)
def test_one_bad_row_of_a_table_is_one_rejected_row(tmp_path: Path, pics: Path, kind: str, delimiter: str) -> None:
    row, reason = CSV_ROWS[kind]
    content = row if isinstance(row, bytes) else row.encode()
    content = b"\n".join([b"image,caption", GOOD.encode(), content, b"2.png,also good", b""])
    suffix = ".csv" if delimiter == "," else ".tsv"
    built = Built(write(tmp_path, f"t{suffix}", content.replace(b",", delimiter.encode())), pics)
    assert built.captions == [["good"], ["also good"]]
    ((source, why),) = built.rejected
    assert why == reason
    if reason in (NO_ROW, NOT_UTF8, "missing image", "malformed address"):
        assert source == f"t{suffix}: line 3"


SOUND_CSV = {
    "a quoted comma": ('1.png,"a, b"', "a, b"),
    "doubled quotes": ('1.png,"say ""hi"""', 'say "hi"'),
    "a quote inside": ('1.png,a 5" screen', 'a 5" screen'),
    "two lines in quotes": ('1.png,"one\ntwo, three"', "one two, three"),
    "a line separator": ("1.png,one\u2028two", "one two"),
    "next line and form feed": ("1.png,one\u0085two\fthree", "one two three"),
    "CRLF": ("1.png,one\r", "one"),
    "empty lines": ("\n\n1.png,one\n\n", "one"),
    "emoji": ("1.png,\U0001f600", "\U0001f600"),
}


@pytest.mark.parametrize("kind", SOUND_CSV)
def test_what_a_table_may_hold_stays_as_it_is(tmp_path: Path, pics: Path, kind: str) -> None:
    row, caption = SOUND_CSV[kind]
    built = Built(write(tmp_path, "t.csv", f"\ufeffimage,caption\n{GOOD}\n{row}\n2.png,last\n"), pics)
    assert built.captions == [["good"], [caption], ["last"]] and built.rejected == []


UNREADABLE = {
    "a quote that nobody closes": (
        '1.png,"so it began\n2.png,plain\n3.png,plain\n',
        "line 3: a quote that opens there",
    ),
    "an open quote in the last row": ('1.png,"so it began\n', "line 3: a quote that opens there"),
    "lone quotes that make a pair": ('1.png,"so\n2.png,plain\n3.png,it "began\n', "line 3: a quote that opens there"),
    "lone quotes that close well": ('1.png,"so\n2.png,plain\n3.png,began"\n', "line 3: the quote that opens there"),
    "a long open quote": ('1.png,"so\n' + "2.png,plain words\n" * 1_000_000, "line 3: a quote that opens there"),
}


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_quote_that_swallows_rows_is_refused_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, delimiter: str
) -> None:
    rows, sentence = UNREADABLE[kind]
    suffix = ".csv" if delimiter == "," else ".tsv"
    content = f"image,caption\n{GOOD}\n{rows}".replace(",", delimiter)
    assert main(["build", str(write(tmp_path, f"q{suffix}", content)), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert sentence in said and "--no-quotes" in said and len(said.splitlines()) == 1


def test_without_quotes_every_line_is_a_row(tmp_path: Path, pics: Path) -> None:
    place = write(tmp_path, "q.tsv", 'image\tcaption\n0.png\t"so it began\n1.png\tplain\n2.png\t"a" b\n')
    built = Built(place, pics, columns=Columns(quotes=False))
    assert built.captions == [['"so it began'], ["plain"], ['"a" b']] and built.rejected == []


HEADERS = {
    "two captions": (b"image,caption,caption\na,b,c\n", "several columns called 'caption'"),
    "two images": (b"image,image,caption\na,b,c\n", "several columns called 'image'"),
    "Latin-1": (b"image,caption,caf\xe9\na,b,c\n", "its first line is not UTF-8 text"),
    "UTF-16": ("image,caption\na,b\n".encode("utf-16"), "is UTF-16, not UTF-8 text"),
    "an open quote": (b'image,"caption\na,b\n', "line 1: a quote that opens there is not closed"),
    "nothing": (b"", "no column 'image'; its columns are: none"),
    "other names": (b"picture,text\na,b\n", "no column 'image'; its columns are: picture, text"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_says_too_much_or_too_little_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    content, sentence = HEADERS[kind]
    assert main(["build", str(write(tmp_path, "t.csv", content)), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.splitlines()) == 1


JSON_ROWS: dict[str, tuple[bytes | Any, str]] = {
    "null caption": ({"image": "1.png", "caption": None}, "missing caption"),
    "number": ({"image": "1.png", "caption": 7}, NOT_TEXT),
    "truth": ({"image": "1.png", "caption": True}, NOT_TEXT),
    "object": ({"image": "1.png", "caption": {"a": "b"}}, NOT_TEXT),
    "empty list": ({"image": "1.png", "caption": []}, "missing caption"),
    "list of null": ({"image": "1.png", "caption": [None]}, NOT_TEXT),
    "list of lists": ({"image": "1.png", "caption": [["a"]]}, NOT_TEXT),
    "empty": ({"image": "1.png", "caption": " "}, "missing caption"),
    "half an emoji": ({"image": "1.png", "caption": "x \ud83d"}, NOT_TEXT),
    "half an emoji in the name": ({"image": "\ud800.png", "caption": "x"}, "image is not text"),
    "NUL in the name": ({"image": "a\0.png", "caption": "x"}, "image is not text"),
    "name of bytes": ({"image": "\udcff.png", "caption": "x"}, "missing file"),
    "name is a list": ({"image": ["1.png"], "caption": "x"}, "image is not text"),
    "name is a number": ({"image": 1, "caption": "x"}, "image is not text"),
    "no name": ({"caption": "x"}, "missing image"),
    "list": ([1, 2], "not a JSON object"),
    "text": ("text", "not a JSON object"),
    "torn": (b'{"image": "1.png", "capt', "not a line of JSON"),
    "two captions": (b'{"image": "1.png", "caption": "a", "caption": "b"}', "not a line of JSON"),
    "deep": (b'{"image": "1.png", "caption": "x", "a": ' + b"[" * 100_000, "not a line of JSON"),
    "Latin-1": (b'{"image": "1.png", "caption": "caf\xe9"}', NOT_UTF8),
    "a number of 5000 digits": (b'{"image": "1.png", "caption": "x", "n": ' + b"9" * 5000 + b"}", "not a line of JSON"),
    "address": ({"image": "http://[::1/a.jpg", "caption": "x"}, "malformed address"),
    "1 MiB": ({"image": "1.png", "caption": "x" * (1 << 20 | 1)}, "caption too long"),
}


@pytest.mark.parametrize("kind", JSON_ROWS)
def test_one_bad_line_of_jsonl_is_one_rejected_row(tmp_path: Path, pics: Path, kind: str) -> None:
    row, reason = JSON_ROWS[kind]
    line = row if isinstance(row, bytes) else json.dumps(row).encode()
    good = [json.dumps({"image": f"{n}.png", "caption": f"good {n}"}).encode() for n in (0, 2)]
    built = Built(write(tmp_path, "t.jsonl", b"\n".join([good[0], line, good[1]])), pics)
    assert built.captions == [["good 0"], ["good 2"]]
    ((_, why),) = built.rejected
    assert why == reason


def test_a_bad_caption_among_several_is_named_and_the_others_stay(tmp_path: Path, pics: Path) -> None:
    rows = [{"image": "0.png", "caption": ["one", None, "two", 5, "one", "x\ud83d"]}]
    built = Built(write(tmp_path, "t.jsonl", json.dumps(rows[0])), pics)
    assert built.captions == [["one", "two"]]
    assert built.statistics["captions"] == {"read": 6, "written": 2, "rejected": 3, "repeated": 1}
    assert [one[:2] for one in built.lost] == [("0.png", NOT_TEXT)] * 3
    assert built.report.accounts.samples == 1


@pytest.mark.parametrize("apart", [False, True])
def test_sums_agree_where_each_caption_is_a_sample(tmp_path: Path, pics: Path, apart: bool) -> None:
    rows = [{"image": f"{n}.png", "caption": [f"{n} {i}" for i in range(n)]} for n in range(4)]
    content = "\n".join(map(json.dumps, [*rows, 7]))
    built = Built(write(tmp_path, "t.jsonl", content), pics, apart=apart)
    assert built.report.num_packed == built.report.accounts.samples == (6 if apart else 3)
    assert built.statistics["rows"] == {"read": 5, "written": 3, "rejected": 2, "repeated": 0}


VALUES: dict[str, tuple[bytes, Any]] = {
    "NaN": (b"NaN", None),
    "-Infinity": (b"-Infinity", None),
    "1e999": (b"1e999", None),
    "nested NaN": (b'{"a": [1, NaN, {"b": Infinity}]}', {"a": [1, None, {"b": None}]}),
    "half an emoji": (b'"x\\ud83d"', None),
    "half an emoji in a name": (b'{"a\\udc00": 1, "b": 2}', {"b": 2}),
    "control signs": (b'"a\\u0000b"', "a b"),
    "a large number": (b"1" + b"0" * 400, 10**400),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_kept_value_that_json_cannot_hold_is_null_and_named(tmp_path: Path, pics: Path, kind: str) -> None:
    written, value = VALUES[kind]
    line = b'{"image": "0.png", "caption": "x", "score": ' + written + b"}"
    built = Built(write(tmp_path, "t.jsonl", line), pics, columns=Columns(keep=("score",)))
    assert built.facts[0]["score"] == value
    assert bool(built.lost) == (kind not in ("control signs", "a large number"))
    assert {reason for _, reason, _ in built.lost} <= {"value is no JSON"}


RESERVED = ("image_id", "caption_id", "size", "captions", "questions", "scene", "twin", "source", "original_size")


@pytest.mark.parametrize("name", RESERVED)
def test_a_kept_column_of_a_reserved_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    place = write(tmp_path, "t.jsonl", {"image": "0.png", "caption": "a", name: 42})
    assert main(["build", str(place), str(tmp_path / "out"), "--keep-columns", name]) == 2
    assert f"--keep-columns names '{name}'" in capsys.readouterr().err


FOREIGN: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "ids of theirs": ({"image_id": 42, "caption_id": "c", "size": "big"},
                      {"input_image_id": 42, "input_caption_id": "c", "input_size": "big"}, ["text"]),
    "an id of theirs like ours": ({"image_id": "0123456789abcdef"}, {"input_image_id": "0123456789abcdef"}, ["text"]),
    "an id of 16 digits": ({"image_id": 1234567890123456}, {"input_image_id": 1234567890123456}, ["text"]),
    "a source of theirs": ({"source": "cc3m"}, {"input_source": "cc3m"}, ["text"]),
    "captions": ({"captions": ["text", "more"]}, {}, ["text", "more"]),
    "captions that are text": ({"captions": "more"}, {}, ["text", "more"]),
    "captions that are none": ({"captions": [None, 5]}, {}, ["text"]),
    "captions of another kind": ({"captions": {"en": "x"}}, {}, ["text"]),
    "questions of another kind": ({"questions": 5}, {}, ["text"]),
    "an unusable question": ({"questions": [{"question": 5}, {"question": "q?", "answer": "a"}]},
                             {"questions": [{"question": "q?", "answer": "a"}]}, ["text"]),
    "NaN": ({"similarity": float("nan")}, {"similarity": None}, ["text"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_json_is_kept_and_what_cannot_be_is_named(tmp_path: Path, pics: Path, kind: str) -> None:
    said, kept, captions = FOREIGN[kind]
    write_shard(
        tmp_path / "f.tar", [Sample("k", {"png": picture(1), "txt": b"text", "json": json.dumps(said).encode()})]
    )
    built = Built(tmp_path / "f.tar", pics)
    assert built.captions == [captions] and kept.items() <= built.facts[0].items()
    assert "size" in built.facts[0] and isinstance(built.facts[0]["image_id"], str)
    assert len(built.lost) == {"captions that are none": 2, "captions of another kind": 1, "NaN": 1,
                               "questions of another kind": 1, "an unusable question": 1}.get(kind, 0)  # fmt: skip


def hf_image(level: int, path: str | None = None) -> dict[str, Any]:
    return {"bytes": picture(level), "path": path}


def test_parquet_of_hugging_face_datasets_gives_its_images(tmp_path: Path, pics: Path) -> None:
    columns = {"image": [hf_image(0, "a.png"), hf_image(1), {"bytes": None, "path": "2.png"}, None],
               "caption": [["one", "two"], ["three"], ["four"], ["five"]]}  # fmt: skip
    parquet.write_table(pa.table(columns), tmp_path / "hf.parquet", row_group_size=2)
    built = Built(tmp_path / "hf.parquet", pics)
    assert built.captions == [["one", "two"], ["three"], ["four"]]
    assert [one["source"] for one in built.facts] == ["a.png", "hf.parquet: row 1", "2.png"]
    assert built.rejected == [("hf.parquet: row 3", "missing image")]


@pytest.mark.parametrize("seed", [None, 3])
def test_parquet_of_plain_bytes_gives_each_row_its_own_image(tmp_path: Path, seed: int | None) -> None:
    levels = range(8)
    table = pa.table({"image": [picture(n) for n in levels], "caption": [f"level {n}" for n in levels]})
    parquet.write_table(table, tmp_path / "b.parquet", row_group_size=3)
    build_shards([str(tmp_path / "b.parquet")], tmp_path / "out", BuildSettings(seed=seed))
    (shard,) = find_shards([str(tmp_path / "out")])
    for parts in open_index(shard).parts:
        level = int(read_part(shard, parts["txt"]).decode().split()[1])
        assert read_part(shard, parts["png"]) == picture(level)


PARQUET_TYPES: dict[str, tuple[dict[str, Any], str]] = {
    "numbers for images": ({"image": [1], "caption": ["x"]}, "column 'image' is int64; wanted text, binary"),
    "numbers for captions": ({"image": ["0.png"], "caption": [1.5]}, "column 'caption' is double; wanted text"),
    "lists of numbers": ({"image": ["0.png"], "caption": [[1]]}, "column 'caption' is list<"),
    "structs for captions": ({"image": ["0.png"], "caption": [{"en": "x"}]}, "column 'caption' is struct<en"),
    "bytes to keep": ({"image": ["0.png"], "caption": ["x"], "raw": [b"x"]}, "column 'raw' is binary; --keep-columns"),
    "a struct without bytes": ({"image": [{"url": "x"}], "caption": ["x"]}, "column 'image' is struct<url"),
}


@pytest.mark.parametrize("kind", PARQUET_TYPES)
def test_parquet_columns_of_other_types_are_refused_with_their_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    columns, sentence = PARQUET_TYPES[kind]
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    keep = ["--keep-columns", "raw"] if "raw" in columns else []
    assert main(["build", str(tmp_path / "t.parquet"), str(tmp_path / "out"), *keep]) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("column", ["image", "caption", "list", "kept"])
def test_one_value_of_parquet_that_is_not_utf8_rejects_its_row(tmp_path: Path, pics: Path, column: str) -> None:
    bad = pa.array([b"x", b"bad \xff", b"x"], pa.binary()).view(pa.string())
    names, good = pa.array(["0.png", "1.png", "2.png"]), pa.array(["a", "b", "c"])
    lists = pa.ListArray.from_arrays([0, 1, 2, 3], bad)
    columns = {"image": names, "caption": good, "kept": good} | {
        "image": {"image": pa.array([b"0.png", b"\xff.png", b"2.png"], pa.binary()).view(pa.string())},
        "caption": {"caption": bad}, "list": {"caption": lists}, "kept": {"kept": bad},
    }[column]  # fmt: skip
    parquet.write_table(pa.table(columns), tmp_path / "b.parquet")
    built = Built(tmp_path / "b.parquet", pics, columns=Columns(keep=("kept",)))
    assert len(built.captions) == 2 and built.rejected == [("b.parquet: row 1", NOT_UTF8)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("nan")]])
def test_nan_of_parquet_is_null_and_named(tmp_path: Path, pics: Path, value: Any) -> None:
    table = pa.table({"image": ["0.png"], "caption": ["x"], "score": [value]})
    parquet.write_table(table, tmp_path / "n.parquet")
    built = Built(tmp_path / "n.parquet", pics, columns=Columns(keep=("score",)))
    assert built.facts[0]["score"] == ([1.0, None] if isinstance(value, list) else None)
    assert [reason for _, reason, _ in built.lost] == ["value is no JSON"]


def coco(images: list[Any], annotations: list[Any]) -> dict[str, Any]:
    good = [{"id": 7, "file_name": "0.png"}, {"id": 8, "file_name": "1.png"}]
    said = [{"image_id": 7, "caption": "seven"}, {"image_id": 8, "caption": "eight"}]
    return {"images": [*good, *images], "annotations": [*said, *annotations]}


COCO: dict[str, tuple[list[Any], list[Any], str]] = {
    "name is null": ([{"id": 9, "file_name": None}], [], "missing image"),
    "name is a list": ([{"id": 9, "file_name": ["2.png"]}], [], "image is not text"),
    "no name": ([{"id": 9}], [], "missing image"),
    "name is half an emoji": ([{"id": 9, "file_name": "\ud800.jpg"}], [], "image is not text"),
    "malformed address": ([{"id": 9, "file_name": "http://[::1/a.jpg"}], [], "malformed address"),
    "unknown kind of address": ([{"id": 9, "file_name": "ttp://x.y/a.jpg"}], [], "malformed address"),
    "id is a list": ([{"id": [9], "file_name": "2.png"}], [], "entry without a usable id"),
    "id is an object": ([{"id": {}, "file_name": "2.png"}], [], "entry without a usable id"),
    "id is null": ([{"id": None, "file_name": "2.png"}], [], "entry without a usable id"),
    "id is true": ([{"id": True, "file_name": "2.png"}], [], "entry without a usable id"),
    "no id": ([{"file_name": "2.png"}], [], "entry without a usable id"),
    "image is a number": ([5], [], "not a JSON object"),
    "no caption": ([{"id": 9, "file_name": "2.png"}], [], "missing caption"),
    "caption is null": ([{"id": 9, "file_name": "2.png"}], [{"image_id": 9, "caption": None}], NOT_TEXT),
    "caption is a list": ([{"id": 9, "file_name": "2.png"}], [{"image_id": 9, "caption": ["x"]}], NOT_TEXT),
    "caption is missing": ([{"id": 9, "file_name": "2.png"}], [{"image_id": 9}], NOT_TEXT),
    "half an emoji": ([{"id": 9, "file_name": "2.png"}], [{"image_id": 9, "caption": "\ud83d"}], NOT_TEXT),
    "about another image": ([], [{"image_id": 99, "caption": "x"}], "caption without its image"),
    "about a list": ([], [{"image_id": [7], "caption": "x"}], "entry without a usable id"),
    "about nothing": ([], [{"caption": "x"}], "entry without a usable id"),
    "annotation is null": ([], [None], "not a JSON object"),
    "said twice": ([{"id": 7, "file_name": "0.png"}], [], "id stands twice"),
}


@pytest.mark.parametrize("kind", COCO)
def test_one_bad_entry_of_coco_is_one_rejected_row(tmp_path: Path, pics: Path, kind: str) -> None:
    images, annotations, reason = COCO[kind]
    built = Built(write(tmp_path, "c.json", coco(images, annotations)), pics)
    assert built.captions == [["seven"], ["eight"]]
    assert [why for _, why in built.rejected] == [reason]


def test_images_of_one_id_share_no_captions(tmp_path: Path, pics: Path) -> None:
    images = [{"id": 42, "file_name": "2.png"}, {"id": 42, "file_name": "3.png"}]
    said = [{"image_id": 42, "caption": "a card"}, {"image_id": "42", "caption": "a dog"}]
    built = Built(write(tmp_path, "c.json", coco(images, said)), pics)
    assert built.captions == [["seven"], ["eight"]]
    assert [why for _, why in built.rejected] == ["id stands twice"] * 4


@pytest.mark.parametrize(("image", "annotation"), [("7", 7), (7, "7"), (7, " 7 "), (7.0, 7), ("7", 7.0)])
def test_ids_match_as_text_or_number(tmp_path: Path, pics: Path, image: Any, annotation: Any) -> None:
    content = {
        "images": [{"id": image, "file_name": "0.png"}],
        "annotations": [{"image_id": annotation, "caption": "x"}],
    }
    assert Built(write(tmp_path, "c.json", content), pics).captions == [["x"]]


def test_ids_that_never_match_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {"images": [{"id": 7, "file_name": "0.png"}], "annotations": [{"image_id": "007", "caption": "x"}]}
    assert main(["build", str(write(tmp_path, "c.json", content)), str(tmp_path / "out")]) == 2
    assert "none of the 1 annotations of" in capsys.readouterr().err


KARPATHY: dict[str, tuple[Any, str]] = {
    "raw is null": ({"filename": "1.png", "sentences": [{"raw": None}]}, NOT_TEXT),
    "raw is a number": ({"filename": "1.png", "sentences": [{"raw": 5}]}, NOT_TEXT),
    "no raw": ({"filename": "1.png", "sentences": [{"tokens": ["a"]}]}, NOT_TEXT),
    "sentence is text": ({"filename": "1.png", "sentences": ["a"]}, NOT_TEXT),
    "sentences are text": ({"filename": "1.png", "sentences": "a"}, NOT_TEXT),
    "sentences are null": ({"filename": "1.png", "sentences": None}, "missing caption"),
    "no sentences": ({"filename": "1.png"}, "missing caption"),
    "name is null": ({"filename": None, "sentences": [{"raw": "x"}]}, "missing image"),
    "name is a number": ({"filename": 5, "sentences": [{"raw": "x"}]}, "image is not text"),
    "folder is a list": ({"filename": "1.png", "filepath": ["a"], "sentences": [{"raw": "x"}]}, "image is not text"),
    "cocoid is a list": (
        {"filename": "1.png", "cocoid": [1], "sentences": [{"raw": "x"}]},
        "entry without a usable id",
    ),
    "split is null": ({"filename": "1.png", "split": None, "sentences": [{"raw": "x"}]}, "image without a split"),
    "split is a list": (
        {"filename": "1.png", "split": ["train"], "sentences": [{"raw": "x"}]},
        "image without a split",
    ),
    "address": ({"filename": "http://[::1/a.jpg", "sentences": [{"raw": "x"}]}, "malformed address"),
    "image is null": (None, "not a JSON object"),
}


@pytest.mark.parametrize("kind", KARPATHY)
def test_one_bad_image_of_karpathys_json_is_one_rejected_row(tmp_path: Path, pics: Path, kind: str) -> None:
    image, reason = KARPATHY[kind]
    if isinstance(image, dict):
        image = {"split": "train"} | image
    images = [{"filename": "0.png", "split": "train", "sentences": [{"raw": "good"}]}, image]
    built = Built(write(tmp_path, "k.json", {"images": images}), pics, splits=("train",))
    assert built.captions == [["good"]] and [why for _, why in built.rejected] == [reason]


RAW = {"[null]": NOT_TEXT, '"abc"': NOT_TEXT, '{"a": 1}': NOT_TEXT, "5": NOT_TEXT, "abc": NOT_TEXT, "": NOT_TEXT,
       "[]": "missing caption", "[[1]]": NOT_TEXT,
       "null": NOT_TEXT, "[NaN]": NOT_TEXT, '["\\ud83d"]': NOT_TEXT}  # fmt: skip


@pytest.mark.parametrize("raw", RAW)
def test_one_bad_row_of_flickr30k_is_one_rejected_row(tmp_path: Path, pics: Path, raw: str) -> None:
    doubled = raw.replace('"', '""')
    rows = f'raw,split,filename\n"[""good""]",train,0.png\n"{doubled}",train,1.png\n"[""other""]",test,2.png\n'
    built = Built(write(tmp_path, "f.csv", rows), pics, splits=("train",))
    assert built.captions == [["good"]] and [why for _, why in built.rejected] == [RAW[raw]]


TOKEN: dict[str, tuple[bytes, str]] = {
    "no tab": (b"1.png#0 a dog", "not a line of captions"),
    "no name": (b"\ta dog", "missing image"),
    "Latin-1": (b"1.png#0\tcaf\xe9", NOT_UTF8),
    "NUL": (b"1\0.png#0\tx", "image is not text"),
    "no caption": (b"1.png#0\t", "missing caption"),
    "address": (b"http://[::1/a.jpg#0\tx", "malformed address"),
}


@pytest.mark.parametrize("kind", TOKEN)
def test_one_bad_line_of_tokens_is_one_rejected_row(tmp_path: Path, pics: Path, kind: str) -> None:
    line, reason = TOKEN[kind]
    built = Built(write(tmp_path, "t.token", b"0.png#0\tgood\n" + line + b"\n2.png#0\tlast\r\n"), pics)
    assert built.captions == [["good"], ["last"]] and [why for _, why in built.rejected] == [reason]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\u0085", "\f", "\v", "\x1c", "\r"])
def test_only_line_feeds_end_a_line_of_tokens(tmp_path: Path, pics: Path, sign: str) -> None:
    built = Built(write(tmp_path, "t.token", f"0.png#0\ta red card{sign}on a table\n"), pics)
    assert built.captions == [["a red card on a table"]] and built.rejected == []


def vqa(folder: Path, question: Any, answer: Any = None) -> tuple[str, str]:
    """Files with one sound question about image 7, `question`, and their answers."""
    questions = [{"image_id": 7, "question_id": 70, "question": "what?"}, question]
    said = {"question_id": 70, "image_id": 7, "multiple_choice_answer": "cat", "answers": [{"answer": "cat"}]}
    answers = [said] if answer is None else [said, answer]
    return (
        str(write(folder, "q.json", {"questions": questions})),
        str(write(folder, "a.json", {"annotations": answers})),
    )


ASKED = {"image_id": 8, "question_id": 80, "question": "why?"}
QUESTION = "question or answer is not text"
VQA: dict[str, tuple[Any, Any, list[str]]] = {
    "no question": ({"image_id": 8, "question_id": 80}, {}, [QUESTION]),
    "null": (ASKED | {"question": None}, {}, [QUESTION]),
    "list": (ASKED | {"question": ["why?"]}, {}, [QUESTION]),
    "half an emoji": (ASKED | {"question": "\ud83d?"}, {}, [QUESTION]),
    "empty": (ASKED | {"question": " "}, {}, [QUESTION]),
    "image is a list": (ASKED | {"image_id": [8]}, {}, ["entry without a usable id"]),
    "question_id is a list": (
        ASKED | {"question_id": [80]},
        {},
        ["entry without a usable id", "answer without its question"],
    ),
    "another image": (ASKED | {"image_id": 99}, {"image_id": 99}, ["question without its image"]),
    "entry is a number": (5, {}, ["not a JSON object", "answer without its question"]),
    "asked twice": ({"image_id": 8, "question_id": 70, "question": "why?"}, None, ["id stands twice"] * 2),
    "answers are [3]": (ASKED, {"answers": [3]}, [QUESTION]),
    "answers are [null]": (ASKED, {"answers": [None]}, [QUESTION]),
    "answers are lists": (ASKED, {"answers": [["x"]]}, [QUESTION]),
    "answers are text": (ASKED, {"answers": "x"}, [QUESTION]),
    "answer is null in its object": (ASKED, {"answers": [{"answer": None}]}, [QUESTION]),
    "answer is a number": (ASKED, {"multiple_choice_answer": 5}, [QUESTION]),
    "half an emoji in the answer": (ASKED, {"multiple_choice_answer": "\ud83d"}, [QUESTION]),
    "no answers": (ASKED, {"answers": [], "multiple_choice_answer": None}, ["question without its answer"]),
    "answered about another image": (ASKED, {"image_id": 7}, ["question without its answer"]),
    "not answered": (ASKED, {"question_id": 81}, ["question without its answer", "answer without its question"]),
    "answer without id": (ASKED, {"question_id": None}, ["question without its answer", "entry without a usable id"]),
}


@pytest.mark.parametrize("kind", VQA)
def test_one_bad_question_is_one_rejected_row(tmp_path: Path, pics: Path, kind: str) -> None:
    question, answer, reasons = VQA[kind]
    sound = {"question_id": 80, "image_id": 8, "multiple_choice_answer": "so", "answers": ["so"]}
    files = vqa(tmp_path, question, None if answer is None else sound | answer)
    built = Built(write(tmp_path, "c.json", coco([], [])), pics, questions=(files,))
    assert built.captions == [["seven"], ["eight"]]
    assert sorted(why for _, why in built.rejected) == sorted(reasons)
    asked = [one["question"] for facts in built.facts for one in facts.get("questions", [])]
    assert asked == ([] if kind == "asked twice" else ["what?"])


@pytest.mark.parametrize("answers", [["red", "blue"], [{"answer": "red"}, {"answer": "blue"}]])
def test_answers_are_plain_texts_or_objects(tmp_path: Path, pics: Path, answers: list[Any]) -> None:
    files = vqa(tmp_path, ASKED, {"question_id": "80", "answers": answers})
    built = Built(write(tmp_path, "c.json", coco([], [])), pics, questions=(files,))
    assert built.facts[1]["questions"][0]["answers"] == ["red", "blue"] and built.rejected == []


def test_two_tables_are_one_list_of_rows(tmp_path: Path, pics: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path, f"{name}.csv", f"image,caption\n0.png,{name}\n1.png\n")
    options = SourceOptions(image_root=str(pics))
    build_shards([str(tmp_path / f"{name}.csv") for name in "ab"], tmp_path / "out", BuildSettings(), options=options)
    lines = [json.loads(line) for line in (tmp_path / "out/left_out.jsonl").read_text().splitlines()]
    assert [(one["key"], one["source"]) for one in lines] == [
        ("00000001", "a.csv: line 3"),
        ("00000003", "b.csv: line 3"),
    ]


def test_a_table_without_a_usable_row_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable pair.*not a row of the table 1 times"):
        Built(write(tmp_path, "t.csv", "image,caption\n1.png\n"), tmp_path)


METADATA = {
    "metadata.csv": "file_name,text\na.png,one\nsub/b.png,two\n",
    "metadata.jsonl": '{"file_name": "a.png", "text": "one"}\n{"file_name": "sub/b.png", "text": "two"}\n',
    "metadata.parquet": "",
}


@pytest.mark.parametrize("name", METADATA)
def test_the_metadata_of_an_image_folder_is_used(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number, image in enumerate(("a.png", "sub/b.png", "c.png", "d.png")):
        (folder / image).write_bytes(picture(number))
    (folder / "d.txt").write_text("four")
    if name.endswith(".parquet"):
        parquet.write_table(pa.table({"file_name": ["a.png", "sub/b.png"], "text": ["one", "two"]}), folder / name)
    else:
        (folder / name).write_text(METADATA[name])
    built = Built(folder, folder)
    assert built.captions == [["one"], ["two"], ["four"]] and built.rejected == [("c.png", "missing caption")]


def test_metadata_without_captions_is_refused_with_its_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f/a.png").write_bytes(picture(1))
    write(tmp_path, "f/metadata.csv", "file_name,label\na.png,3\n")
    assert main(["build", str(tmp_path / "f"), str(tmp_path / "out")]) == 2
    assert "has no column 'caption'; its columns are: file_name, label" in capsys.readouterr().err


def test_grouped_rows_keep_every_value_or_name_it(tmp_path: Path, pics: Path) -> None:
    content = "image,caption,license,score\n0.png,one,by,1\n1.png,two,cc,2\n0.png,three,by,3\n0.png,one,by,1\n"
    columns = Columns(keep=("license", "score"))
    built = Built(write(tmp_path, "g.csv", content), pics, columns=columns, group=True)
    assert built.captions == [["one", "three"], ["two"]]
    assert {"license": "by", "score": "1"}.items() <= built.facts[0].items()
    assert built.lost == [("0.png", "value differs from that of the first row", "score")]
    assert built.statistics["captions"] == {"read": 4, "written": 3, "rejected": 0, "repeated": 1}


@pytest.mark.parametrize("word", ["--strict", ""])
def test_the_summary_tells_the_sums_and_strict_their_code(
    tmp_path: Path, pics: Path, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    place = write(tmp_path, "t.jsonl", json.dumps({"image": "0.png", "caption": ["one", None]}) + "\n7\n")
    words = ["build", str(place), str(tmp_path / "out"), "--image-root", str(pics), *filter(None, [word])]
    assert main([*words, "--processes", "1"]) == (3 if word else 0)
    said = capsys.readouterr().out
    assert "2 rows read = 1 kept + 1 rejected; 2 captions = 1 kept + 1 rejected" in said
    assert "t.jsonl: line 2" in said and "caption is not text" in said


def test_our_own_shards_are_rebuilt_with_their_ids_made_anew(tmp_path: Path, pics: Path) -> None:
    first = Built(write(tmp_path, "t.csv", "image,caption\n0.png,one\n"), pics)
    (tmp_path / "again").mkdir()
    (tmp_path / "out").rename(tmp_path / "again/in")
    assert Built(tmp_path / "again/in", pics).facts == first.facts


@pytest.mark.parametrize(
    "said", [{"image_id": 42}, {"captions": ["a"]}, {"questions": [{"question": "q", "answer": "a"}]}, {}]
)
def test_json_of_other_tools_reads_alike_in_the_loader_and_after_a_rebuild(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    content = json.dumps(said).encode()
    write_shard(tmp_path / "f.tar", [Sample("k", {"png": picture(1), "txt": b"a", "json": content})])
    built = Built(tmp_path / "f.tar", tmp_path)
    assert parse_questions(strict_json(content)) == parse_questions(built.facts[0])
    assert built.captions == [["a"]]


NO_COCO: dict[str, tuple[bytes, str]] = {
    "a list": (b"[]", "has no list 'annotations'"),
    "a number": (b"5", "has no list 'annotations'"),
    "null": (b"null", "has no list 'annotations'"),
    "images are an object": (b'{"images": {}, "annotations": []}', "has no list 'images'"),
    "images are numbers": (b'{"images": [1, 2], "annotations": []}', "has no list 'images'"),
    "no image has a name": (b'{"images": [{"id": 1}], "annotations": []}', "without 'file_name'"),
    "instances": (b'{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1}]}', "without 'caption'"),
    "deep": (b'{"images": ' + b"[" * 100_000, "is not JSON: nested too deeply"),
    "torn": (b'{"images": [{"id": 1, "fi', "is not JSON"),
    "empty": (b"", "is empty"),
    "Latin-1": (b'{"images": [{"id": 1, "file_name": "\xe9.jpg"}]}', "is not JSON: not UTF-8 text (byte 36"),
    "no split": (b'{"images": [{"sentences": [], "filename": "a"}]}', "without 'split'"),
}


@pytest.mark.parametrize("kind", NO_COCO)
def test_a_json_of_another_layout_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    content, sentence = NO_COCO[kind]
    assert main(["build", str(write(tmp_path, "c.json", content)), str(tmp_path / "out"), "--split", "train"]) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.splitlines()) == 1


NO_PARQUET: dict[str, Any] = {
    "empty": b"",
    "text": b"image,caption\n0.png,x\n",
    "only its mark": b"PAR1PAR1",
    "two of a name": pa.table([pa.array(["0.png"]), pa.array(["a"]), pa.array(["b"])], ["image", "caption", "caption"]),
    "no columns": pa.table({}),
    "other columns": pa.table({"url": ["x"], "text": ["y"]}),
}


@pytest.mark.parametrize("kind", NO_PARQUET)
def test_a_parquet_file_that_is_no_table_of_captions_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    content, place = NO_PARQUET[kind], tmp_path / "t.parquet"
    place.write_bytes(content) if isinstance(content, bytes) else parquet.write_table(content, place)
    assert main(["build", str(place), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "t.parquet" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_parquet_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float) -> None:
    parquet.write_table(pa.table({"image": ["0.png"] * 99, "caption": ["x"] * 99}), tmp_path / "t.parquet")
    content = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(content[: int(share * len(content))])
    assert main(["build", str(tmp_path / "t.parquet"), str(tmp_path / "out")]) == 2
    assert "is not a Parquet table" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["t.jsonl", "t.token", "t.csv", "t.tsv"])
def test_a_table_of_another_encoding_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    place = write(tmp_path, name, '{"image": "0.png", "caption": "x"}\n'.encode("utf-16"))
    assert main(["build", str(place), str(tmp_path / "out")]) == 2
    assert "is UTF-16, not UTF-8 text; convert it first" in capsys.readouterr().err


def test_a_name_that_is_not_utf8_is_written_so_that_all_can_be_read(tmp_path: Path, capfd: Any) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    name = os.fsdecode(b"d\xe9t")
    for suffix, content in ((".png", picture(1)), (".txt", b"one"), ("2.png", b"no image"), ("2.txt", b"two")):
        (folder / f"{name}{suffix}").write_bytes(content)
    built = Built(folder, folder)
    assert built.facts[0]["source"] == "d\\xe9t.png"
    assert built.rejected == [(f"{name}2.png", "not a JPEG, PNG or WebP image")]
    assert main(["build", str(folder), str(tmp_path / "again"), "--processes", "1"]) == 0
    assert "d\\xe9t2.png" in capfd.readouterr().out
    table = parquet.read_table(tmp_path / "again/samples.parquet").to_pylist()
    assert [row["source"] for row in table] == ["d\\xe9t.png", "d\\xe9t2.png"]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.token", "c.json"])
def test_tables_with_changed_bytes_keep_their_sums_or_are_one_sentence(
    tmp_path: Path, pics: Path, name: str, seed: int
) -> None:
    rows = [(f"{n % 4}.png", f"caption {n}") for n in range(20)]
    lines = {
        "t.csv": ["image,caption", *(f'{image},"{text}, so"' for image, text in rows)],
        "t.tsv": ["image\tcaption", *(f"{image}\t{text}" for image, text in rows)],
        "t.jsonl": [json.dumps({"image": image, "caption": text}) for image, text in rows],
        "t.token": [f"{image}#{n}\t{text}" for n, (image, text) in enumerate(rows)],
        "c.json": [json.dumps(coco([], [{"image_id": 7, "caption": text} for _, text in rows]))],
    }[name]
    rng, content = Random(seed), bytearray("\n".join(lines).encode())
    for _ in range(1 + seed % 4):
        at = rng.randrange(len(content))
        content[at : at + rng.choice((0, 1, 3))] = rng.choice(
            (b"\0", b'"', b"\n", b"\xff", b",", b"\t", b"[", b"{", b"\\")
        )
    place = write(tmp_path, name, bytes(content))
    try:
        built = Built(place, pics)
    except DataError as error:
        assert str(error) and "\n" not in str(error)
        return
    if name == "t.jsonl":
        assert built.statistics["rows"]["read"] == sum(bool(line.strip()) for line in content.split(b"\n"))
    if name == "t.token":
        num_lines = sum(bool(line.strip()) for line in content.split(b"\n"))
        no_lines = ("not a line of captions", NOT_UTF8)
        assert built.statistics["captions"]["read"] + sum(why in no_lines for _, why in built.rejected) == num_lines


def test_questions_of_rejected_images_are_counted(tmp_path: Path, pics: Path) -> None:
    asked = {"image_id": 9, "question_id": 80, "question": "why?"}
    files = vqa(tmp_path, asked, {"question_id": 80, "multiple_choice_answer": "so"})
    built = Built(write(tmp_path, "c.json", coco([{"id": 9, "file_name": "gone.png"}], [])), pics, questions=(files,))
    assert built.rejected == [("gone.png", "missing file")]
    assert built.statistics["questions"] == {"read": 2, "written": 1, "rejected": 1, "repeated": 0}


def test_questions_of_images_whose_id_stands_twice_are_named(tmp_path: Path, pics: Path) -> None:
    images = [{"id": 9, "file_name": "2.png"}, {"id": 9, "file_name": "3.png"}]
    asked = {"image_id": 9, "question_id": 80, "question": "why?"}
    files = vqa(tmp_path, asked, {"question_id": 80, "multiple_choice_answer": "so"})
    built = Built(write(tmp_path, "c.json", coco(images, [])), pics, questions=(files,))
    assert built.rejected[-1] == ("question 80", "question without its image")


@pytest.mark.parametrize("cocoid", [7, "7"])
def test_questions_of_other_splits_are_no_rejected_rows(tmp_path: Path, pics: Path, cocoid: Any) -> None:
    images = [{"filename": f"{n}.png", "cocoid": n, "split": split, "sentences": [{"raw": f"{n}"}]}
              for n, split in ((0, "train"), (1, "test"))]  # fmt: skip
    images[0]["cocoid"] = cocoid
    files = vqa(tmp_path, {"image_id": 1, "question_id": 80, "question": "why?"},
                {"question_id": 80, "multiple_choice_answer": "so"})  # fmt: skip
    built = Built(write(tmp_path, "k.json", {"images": images}), pics, splits=("train",), questions=(files,))
    assert [one["question"] for one in built.facts[0]["questions"]] == ["what?"] and built.rejected == []
