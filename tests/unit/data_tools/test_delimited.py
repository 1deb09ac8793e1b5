"""CSV and TSV: records, the lines where they begin, and what is no record."""

from pathlib import Path

import pytest

from data_tools.delimited import open_delimited
from mmtrain.data.index import DataError


def read(folder: Path, content: bytes, name: str = "t.csv", quotes: bool = True) -> list[tuple[str, list[str], str]]:
    (folder / name).write_bytes(content)
    with open_delimited(folder / name, quotes=quotes) as table:
        return [(one.line, list(one.values.values()), one.detail) for one in table.records(table.header[0])]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_records_are_numbered_by_the_line_where_they_begin(tmp_path: Path, end: bytes) -> None:
    content = end.join([b"\xef\xbb\xbfa,b", b'1,"x', b'y"', b"", b"2,z"])
    two_lines = "x" + end.decode() + "y"
    assert read(tmp_path, content) == [("line 2", ["1", two_lines], ""), ("line 5", ["2", "z"], "")]


def test_what_is_no_record_says_why_and_where(tmp_path: Path) -> None:
    found = read(tmp_path, b'a,b\n1,2,3\n4\n5,"6"7\n8,\xe9\n9,\0\n10,11\n')
    assert [line for line, _, _ in found] == [f"line {number}" for number in range(2, 8)]
    assert [values for _, values, _ in found] == [[], [], [], [], [], ["10", "11"]]
    details = [detail for _, _, detail in found]
    assert details[0] == "3 fields, the header has 2, the last is '3'"
    assert details[1] == "1 fields, the header has 2"
    assert "expected after" in details[2]
    assert details[3] == "byte 2 of line 5 is 0xe9"
    assert details[4] == "holds a NUL byte"


def test_a_text_of_several_lines_is_no_swallowed_row(tmp_path: Path) -> None:
    content = b'image,caption\na.jpg,"first, second\nthird, fourth\nfifth"\nb.jpg,x\n'
    assert [values[0] for _, values, _ in read(tmp_path, content)] == ["a.jpg", "b.jpg"]
    with pytest.raises(DataError, match=r"line 2: .* closed only in line 4, and line 3 between them is a row"):
        read(tmp_path, b'image,caption\na.jpg,"x\nb.jpg,y\nz"\n')


def test_quotes_are_signs_where_they_are_switched_off(tmp_path: Path) -> None:
    found = read(tmp_path, b'a\tb\n"1\t"2\n', "t.tsv", quotes=False)
    assert found == [("line 2", ['"1', '"2'], "")]
