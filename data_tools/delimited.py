"""CSV and TSV by RFC 4180: records with their line numbers; no line is lost in a quote that nobody closed.

One rule for both: a field that begins with a quote ends at the next lone quote, and a doubled quote in it is one quote;
anywhere else a quote is a plain character. With `quotes` off every quote is a plain character. Lines end with LF, CRLF
or CR only.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mmtrain.data.index import DataError
from mmtrain.io.file_kinds import EMPTY, HEAD_BYTES, describe_bytes

MAX_FIELD_CHARACTERS = 1 << 24
NOT_UTF8 = "not UTF-8 text"
NO_ROW = "not a row of the table"
WITHOUT_QUOTES = 'close the quote, double it ("") where it belongs to the text, or give --no-quotes'
_UNDECODED = re.compile("[\udc80-\udcff]")
_ROW_NAME = re.compile(r"\s*(\S+\.\w{2,5}|[a-zA-Z][a-zA-Z0-9+.-]*://\S+)\s*")  # what rows are recognized by
BYTE_ORDER_MARK, BYTE_ORDER_MARKS_OF_UTF16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Record:
    """One record of a table, or why it is none."""

    line: str  # where it begins, as "line 7"
    values: dict[str, str]
    fault: str = ""
    detail: str = ""


class DelimitedTable:
    """The records of a CSV or TSV file; DataError where it cannot be cut into records at all."""

    def __init__(self, file: BinaryIO, place: Path, *, quotes: bool = True) -> None:
        csv.field_size_limit(MAX_FIELD_CHARACTERS)
        self._place, self._lines = place, _Lines(file)
        self._delimiter = "\t" if place.suffix.lower() == ".tsv" else ","
        quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
        self._reader = csv.reader(self._lines, delimiter=self._delimiter, strict=True, quoting=quoting)
        self.header = self._read_header()

    def records(self, name_column: str) -> Iterator[Record]:
        """Every record but the header; `name_column` tells rows from lines of a text that spans several."""
        place_of_name = self.header.index(name_column)
        while (found := self._next()) is not None:
            if isinstance(found, Record):
                yield found
            elif found:  # an empty line is no record
                yield self._record(found, place_of_name)

    def _read_header(self) -> list[str]:
        found = self._next()
        if isinstance(found, Record) or self._lines.undecoded:
            raise DataError(
                f"{self._place} is no table: its first line is {found.fault if isinstance(found, Record) else NOT_UTF8}"
            )
        check_names(self._place, found or ())
        return found or []

    def _next(self) -> list[str] | Record | None:
        """The fields of the next record, or why it is none; None at the end."""
        self._lines.begin_record()
        try:
            return next(self._reader, None)
        except csv.Error as error:
            first = self._lines.first
            if self._lines.ended or self._lines.number > first:
                raise DataError(
                    f"{self._place}, line {first}: a quote that opens there is not closed (line "
                    f"{self._lines.number}: {error}); {WITHOUT_QUOTES}"
                ) from error
            return Record(f"line {first}", {}, NO_ROW, str(error))

    def _record(self, fields: list[str], place_of_name: int) -> Record:
        lines, line = self._lines, f"line {self._lines.first}"
        if lines.undecoded:
            return Record(line, {}, NOT_UTF8, lines.undecoded)
        if lines.has_nul:
            return Record(line, {}, NO_ROW, "holds a NUL byte")
        if len(lines.held) > 1:
            self._refuse_swallowed(place_of_name)
        if len(fields) != len(self.header):
            further = f", the last is {fields[-1][:60]!r}" if len(fields) > 1 else ""
            return Record(line, {}, NO_ROW, f"{len(fields)} fields, the header has {len(self.header)}{further}")
        return Record(line, dict(zip(self.header, fields, strict=True)))

    def _refuse_swallowed(self, place_of_name: int) -> None:
        """DataError where lines inside a quoted field are rows of their own: two lone quotes far apart make a pair."""
        for number, line in enumerate(self._lines.held[1:], start=self._lines.first + 1):
            fields = line.rstrip("\r\n").split(self._delimiter)
            if len(fields) == len(self.header) and _ROW_NAME.fullmatch(fields[place_of_name]):
                raise DataError(
                    f"{self._place}, line {self._lines.first}: the quote that opens there is closed only in line "
                    f"{self._lines.number}, and line {number} between them is a row ({line.strip()[:60]!r}); "
                    f"{WITHOUT_QUOTES}"
                )


def check_names(place: Path, names: Sequence[str]) -> None:
    """DataError where two columns have one name; columns without a name are nobody's."""
    if twice := [name for name, count in Counter(names).items() if count > 1 and name.strip()]:
        raise DataError(f"{place} has several columns called {twice[0]!r}; rename all but one")


@contextmanager
def open_text(place: Path) -> Iterator[BinaryIO]:
    """A file of lines in UTF-8, in bytes; DataError where its first bytes are those of another kind of file."""
    with open(place, "rb") as file:
        head = file.read(HEAD_BYTES)
        if head[:2] in BYTE_ORDER_MARKS_OF_UTF16:
            raise DataError(f"{place} is UTF-16, not UTF-8 text; convert it first")
        if (kind := describe_bytes(head)) not in (None, EMPTY):
            raise DataError(f"{place} is {kind}")
        file.seek(0)
        yield file


@contextmanager
def open_delimited(place: Path, *, quotes: bool = True) -> Iterator[DelimitedTable]:
    """The table in a file; DataError where it is none."""
    with open_text(place) as file:
        yield DelimitedTable(file, place, quotes=quotes)


class _Lines:
    """The lines of a file, with what keeps those of the record at hand from being text."""

    def __init__(self, file: BinaryIO) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self.number, self.ended = 0, False
        self.begin_record()

    def begin_record(self) -> None:
        """Forget the lines of the record before."""
        self.first, self.held, self.undecoded, self.has_nul = self.number + 1, list[str](), "", False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._text.readline()
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        self.held.append(line)
        if "\0" in line:
            self.has_nul = True
        if not line.isascii() and not self.undecoded and (found := _UNDECODED.search(line)):
            offset = len(line[: found.start()].encode("utf-8", "surrogateescape"))
            self.undecoded = f"byte {offset} of line {self.number} is 0x{ord(found[0]) - 0xDC00:02x}"
        return line
