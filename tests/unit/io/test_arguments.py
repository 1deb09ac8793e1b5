"""Types of arguments at the edge of what they take."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from mmtrain.io.arguments import (
    Parser,
    at_least,
    finite,
    fraction,
    local_path,
    natural,
    positive,
    positive_fraction,
    size_in_bytes,
    whole,
    whole_within,
    within,
    words,
)

TAKEN = [
    (whole, "1", 1),
    (whole, "007", 7),
    (whole, str(2**63 - 1), 2**63 - 1),
    (natural, "0", 0),
    (whole_within(1, 100), "100", 100),
    (finite, "-1e3", -1000.0),
    (at_least(0.5), "0.5", 0.5),
    (positive, "1e-300", 1e-300),
    (fraction, "0", 0.0),
    (fraction, "1", 1.0),
    (positive_fraction, "1", 1.0),
    (size_in_bytes, "1.5K", 1536),
    (size_in_bytes, "2GiB", 2 << 30),
    (within(-10, 10), "-1e1", -10.0),
    (words, "  a dog ", "a dog"),
]
REFUSED = [
    (whole, ("0", "-1", "1.0", "1e3", "", "one", "²", "٣", "nan", str(2**63), "9" * 5000)),
    (natural, ("-1", "0x1", "1_000", " ")),
    (whole_within(1, 100), ("101",)),
    (finite, ("nan", "inf", "-inf", "1e999", "", "one")),
    (at_least(0.5), ("0.49", "nan", "inf")),
    (positive, ("0", "-0.0", "-1", "nan", "inf")),
    (fraction, ("-0.1", "1.1", "nan")),
    (positive_fraction, ("0", "1.5", "nan")),
    (size_in_bytes, ("0", "-1", "1X", "0.5", "1.5.5K", "9" * 400)),
    (within(-10, 10), ("10.1", "-1e308", "nan", "inf")),
    (words, ("", " \t", "d\udce9t")),
    (local_path, ("", "~nobody-of-this-name/x", "~a\0b", "s3://bucket/x", "FILE:///tmp/x")),
]


@pytest.mark.parametrize(("kind", "text", "value"), TAKEN)
def test_a_value_that_fits_is_taken(kind: Callable[[str], object], text: str, value: object) -> None:
    assert kind(text) == value


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in REFUSED for text in texts])
def test_a_value_that_does_not_fit_is_refused_in_a_line(kind: Callable[[str], object], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        kind(text)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 120


def test_a_parser_says_one_sentence_and_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="mmtrain x")
    parser.add_argument("--count", type=whole)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--count", "0"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    sentence = "mmtrain x: argument --count: '0' is not a whole number of at least 1; see `mmtrain x --help`"
    assert said == f"{sentence}\n"


def test_a_path_begins_at_home_unless_such_a_name_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("~/x") == Path("/home/me/x")
    assert all(local_path(name) == Path(name) for name in ("x/~/y", "$HOME/x", "./~"))
    (tmp_path / "~").mkdir()
    assert local_path("~") == Path("~")


def test_an_address_in_place_of_a_path_is_shown_without_its_secrets() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="it is an address; wanted a local path") as refused:
        local_path("https://user:hunter2@host/x?sig=hunter2")
    assert "hunter2" not in str(refused.value)
