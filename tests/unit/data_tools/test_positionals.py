"""Words behind a flag of several values that are positionals."""

from pathlib import Path

import pytest

from data_tools.cli import _parser


@pytest.mark.parametrize(
    ("words", "inputs", "out"),
    [
        ("in.json out --split train", ["in.json"], "out"),
        ("in.json --split train out", ["in.json"], "out"),
        ("--split train in.json out", ["in.json"], "out"),
        ("in.json --vqa q.json a.json out", ["in.json"], "out"),
        ("in.json --vqa q.json out", ["in.json"], "out"),
        ("in.json --vqa q.json a.json out --split train", ["in.json"], "out"),
        ("in.json --keep-columns a b out --resize 32", ["in.json"], "out"),
        ("a.csv b.csv --keep-columns a -- out", ["a.csv", "b.csv"], "out"),
        ("a.csv --resize 32 out", ["a.csv"], "out"),
        ("a.csv --resize=32 --spl train out", ["a.csv"], "out"),
    ],
)
def test_no_flag_keeps_what_positionals_miss(words: str, inputs: list[str], out: str) -> None:
    arguments = _parser("build").parse_args(["build", *words.split()])
    assert (arguments.input, arguments.out) == (inputs, Path(out))
    assert not {"out", "in.json"} & {*arguments.split, *arguments.keep_columns, *sum(arguments.vqa, [])}


def test_flags_of_several_values_add_up() -> None:
    words = "build a.json out --split train --split val --keep-columns a b --keep-columns c --vqa q a --vqa r"
    arguments = _parser("build").parse_args(words.split())
    assert (arguments.split, arguments.keep_columns) == (["train", "val"], ["a", "b", "c"])
    assert arguments.vqa == [["q", "a"], ["r"]]


def test_a_file_is_no_folder_for_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(SystemExit) as ended:
        _parser("build").parse_args(["build", "in.json", "--vqa", "q.json", str(tmp_path / "a.json")])
    assert ended.value.code == 2 and "OUT" in capsys.readouterr().err
