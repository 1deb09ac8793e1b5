"""Strict JSON: what is no JSON, no number, no text or too deep is refused with its place."""

import json

import pytest

from mmtrain.io.json_text import MAX_JSON_DEPTH, JsonError, json_fault, lenient_json, strict_dumps, strict_json


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": NaN}', "NaN"),
        (b'{"a": [-Infinity]}', "-Infinity"),
        (b'{"a": 1e999}', "1e999"),
        (b'{"a": "half \\ud83d"}', r"lone surrogate \(\\ud83d\) at .a"),
        (b'{"x\\udc00": 1}', "lone surrogate .* in a name"),
        (b'{"a": "\xed\xa0\xbd"}', "not UTF-8 text"),
        (b'{"a": "\xff"}', r"not UTF-8 text \(byte 7"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 65 + b"]" * 65, "more than 64 levels"),
        (b'{"a":' * 66 + b"1" + b"}" * 66, "more than 64 levels"),
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"9" * 5000, "whole number of more than"),
        ('"\ud800"', "lone surrogate .* at the top"),
    ],
)
def test_what_is_no_strict_json_is_refused_with_its_place(content: bytes, reason: str) -> None:
    with pytest.raises(JsonError, match=reason):
        strict_json(content)


def test_sound_json_is_what_json_reads() -> None:
    value = {"a": [1, 2.5, True, None, "é \U0001f600"], "b": {"c": [[]] * 80}, "n": 10**30}
    for content in (
        json.dumps(value),
        json.dumps(value).encode(),
        json.dumps(value, ensure_ascii=False).encode("utf-16"),
    ):
        assert strict_json(content) == value
    assert strict_json(b"\xef\xbb\xbf[]") == []
    assert strict_json(memoryview(b"[1]")) == [1]


def test_size_and_depth_are_bounded() -> None:
    assert strict_json(b"[" * MAX_JSON_DEPTH + b"]" * MAX_JSON_DEPTH) is not None
    with pytest.raises(JsonError, match="6 bytes, at most 5"):
        strict_json(b"[1234]", max_bytes=5)


def test_one_unfit_value_of_a_file_is_named_by_its_place() -> None:
    value = lenient_json(b'[{"a": 1}, {"a": [0, NaN]}, {"b": "\\ud800"}]')
    assert [json_fault(one) for one in value] == ["", "NaN at .a[1]", r"a lone surrogate (\ud800) at .b"]
    with pytest.raises(JsonError, match="nested too deeply"):
        lenient_json(b"[" * 100_000)
    with pytest.raises(JsonError, match="^holds a whole number of more than 4300 digits$"):
        lenient_json(b'{"a": ' + b"9" * 5000 + b"}")


def test_only_strict_json_is_written() -> None:
    assert json.loads(strict_dumps({"a": [1.5, "é"]})) == {"a": [1.5, "é"]}
    for bad in (float("nan"), [float("inf")], {"a": "\udce9"}, {1: 2}, b"bytes"):
        with pytest.raises(JsonError, match="holds"):
            strict_dumps(bad)


def test_two_values_of_one_name_are_refused_where_asked() -> None:
    assert lenient_json(b'{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(JsonError, match="holds the name 'a' twice"):
        lenient_json(b'[{"b": {"a": 1, "a": 2}}]', unique_names=True)
