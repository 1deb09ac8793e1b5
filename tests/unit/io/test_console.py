"""Output for people: escapes, encodings, tables of names, and streams that go away."""

import errno
import io
import sys

import pytest

from mmtrain.io.console import (
    STDOUT,
    BestEffortStream,
    PlainTable,
    best_effort_output,
    print_error,
    print_report,
    print_result,
    print_table,
    print_text,
)


class Gone(io.StringIO):
    """A stream of a full disk, or of a pipe without a reader."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def write(self, text: str) -> int:
        raise OSError(self._number, "gone")


def test_fields_are_escaped_and_separated_by_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    print_result("a\tb\n.jpg", "e\x1b[31m d\udce9t [/x]")
    assert capsys.readouterr().out == "a\\tb\\n.jpg\te\\x1b[31m d\\xe9t [/x]\n"


def test_lines_of_a_text_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_text("a: 1\nb: \x07\n")
    print_error("mmtrain", "two:\n  - a\nb\r")
    said = capsys.readouterr()
    assert said.out == "a: 1\nb: \\x07\n" and said.err == "mmtrain: two:\n  - a\\nb\\r\n"


def test_cells_and_heads_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = PlainTable("[/y]", "b", title="[v2]")
    table.add_row("[red]x[/red]", ":smile: [/q]\x1b")
    print_table(table)
    said = capsys.readouterr().out
    assert all(name in said for name in ("[/y]", "[v2]", "[red]x[/red]", ":smile: [/q]\\x1b"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_signs_without_a_place_in_the_encoding_are_escapes(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", file)
    print_result("é☃")
    wanted = {"ascii": "\\xe9\\u2603", "latin-1": "é\\u2603", "utf-8": "é☃"}[encoding]
    assert file.buffer.getvalue().decode(encoding) == f"{wanted}\n"


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "goes on without it"), (errno.EPIPE, "")])
def test_a_report_goes_on_where_the_output_is_gone(
    number: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Gone(number))
    print_report("written")
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == bool(words)
    with pytest.raises(OSError, match="standard output"):
        print_result("a result")


def test_a_best_effort_stream_drops_what_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Gone(errno.EIO))
    with best_effort_output(stdout=True):
        assert isinstance(sys.stdout, BestEffortStream) and not sys.stdout.isatty()
        print("lost")
        print("lost", file=sys.stderr)
    assert isinstance(sys.stdout, Gone) and isinstance(sys.stderr, Gone)


@pytest.mark.parametrize("is_result", [True, False])
def test_a_table_that_cannot_be_written_names_the_output(is_result: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Gone(errno.ENOSPC))
    table = PlainTable("a")
    if is_result:
        with pytest.raises(OSError, match="gone") as raised:
            print_table(table)
        assert raised.value.filename == STDOUT
    else:
        print_table(table, is_result=False)
