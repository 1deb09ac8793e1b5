"""Printing for people: names from outside, encodings without a sign, an output that goes away. No torch.

`print_result` is for output that is what the command is for: where it cannot be written the command ends
(`mmtrain.io.command` says why). `print_report` is for what is told about results that lie in files: where it cannot be
written that is said once on standard error, and the work goes on.

Control characters and names that are not UTF-8 are shown as escapes (`mmtrain.io.text.printable`), so that a table of
tab separated fields stays one. Nothing is read as markup.
"""

import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from mmtrain.io.text import printable

STDOUT = "standard output"


def print_result(*fields: str) -> None:
    """One line of results: fields with tabs between them. OSError named `STDOUT` where it cannot be written."""
    _write_stdout("\t".join(map(printable, fields)) + "\n")


def print_report(*fields: str) -> None:
    """One line about work whose results lie in files; never raises because of the output."""
    try:
        print_result(*fields)
    except OSError as error:
        go_on_without_stdout(error)


def print_error(program: str, message: str) -> None:
    """`PROGRAM: message` on standard error; a standard error that is gone is no further error.

    The lines of a list, which are indented, stay lines; any other line end is one of a name and becomes an escape.
    """
    lines = re.split(r"\n(?=  )", f"{program}: {message}")
    _write_stderr("".join(f"{printable(line)}\n" for line in lines))


def print_log(text: str) -> None:
    """Lines of a log on standard error; one that is gone is no error: what matters is in files as well."""
    _write_stderr("".join(f"{printable(line)}\n" for line in text.split("\n")))


def print_table(table: Table, *, min_width: int = 0, is_result: bool = True) -> None:
    """A table on standard output, at least `min_width` wide; with or without `is_result` as the two functions above."""
    console = plain_console()
    console.width = max(console.width, min_width)
    try:
        with console.capture() as captured:  # which writes no character, but where output is unbuffered that may fail
            console.print(table)
        _write_stdout(captured.get())
    except OSError as error:
        error.filename = STDOUT
        if is_result:
            raise
        go_on_without_stdout(error)


def print_text(text: str) -> None:
    """Results of several lines, whose line ends are kept."""
    _write_stdout("".join(f"{printable(line)}\n" for line in text.rstrip("\n").split("\n")))


class PlainTable(Table):
    """A table whose cells and heads show text as it is."""

    def __init__(self, *heads: str, overflow: str = "ellipsis", **style: Any) -> None:
        super().__init__(*(Column(printable(head), overflow=overflow) for head in heads), **style)

    def add_row(self, *cells: str, **style: Any) -> None:
        """Add a row."""
        super().add_row(*map(printable, cells), **style)


def plain_console(*, stderr: bool = False) -> Console:
    """A rich console that takes no text for markup, emoji codes or syntax."""
    file = BestEffortStream(sys.stderr) if stderr else None
    return Console(file=file, markup=False, emoji=False, highlight=False)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error where that is a terminal; what it gives is called for each of `total` that is done."""
    console = plain_console(stderr=True)
    # rich would send standard output to the bar's console, also where it is a file or a pipe.
    redirects = sys.stdout.isatty()
    bar = Progress(console=console, disable=not console.is_terminal, redirect_stdout=redirects)
    task = bar.add_task(what, total=total)
    with bar:
        yield lambda: bar.advance(task)


class BestEffortStream:
    """A text stream that may go away, as a terminal or a full disk does: what it cannot take is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written."""
        try:
            self._stream.write(_encodable(text, self._stream))
        except OSError:
            silence(self._stream)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        try:
            self._stream.flush()
        except OSError:
            silence(self._stream)


@contextmanager
def best_effort_output(*, stdout: bool) -> Iterator[None]:
    """Standard error, and with `stdout` standard output too, as streams that may go away while the block runs."""
    with ExitStack() as streams:
        if not isinstance(sys.stderr, BestEffortStream):
            streams.enter_context(redirect_stderr(BestEffortStream(sys.stderr)))
        if stdout and not isinstance(sys.stdout, BestEffortStream):
            streams.enter_context(redirect_stdout(BestEffortStream(sys.stdout)))
        yield


def open_standard_streams() -> None:
    """Give streams that were closed from the start to the null device: the next file opened would take their place."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def go_on_without_stdout(error: OSError) -> None:
    """Send what is still printed nowhere, and say why once; not where only the reader of a pipe has gone."""
    silence(sys.stdout)
    if not isinstance(error, BrokenPipeError):
        print_log(f"{STDOUT} cannot be written ({error.strerror or error}); the work goes on without it")


def silence(stream: TextIO) -> None:
    """Point a stream to the null device, where what is buffered goes when the interpreter exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    except io.UnsupportedOperation:  # no file of the system, as in tests
        pass
    finally:
        os.close(nowhere)


def _write_stdout(text: str) -> None:
    try:
        sys.stdout.write(_encodable(text, sys.stdout))
        sys.stdout.flush()
    except OSError as error:
        error.filename = STDOUT
        raise


def _write_stderr(text: str) -> None:
    stream = BestEffortStream(sys.stderr)
    stream.write(text)
    stream.flush()


def _encodable(text: str, file: TextIO) -> str:
    """`text` with escapes for what the encoding of `file` has no sign for."""
    encoding = getattr(file, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
