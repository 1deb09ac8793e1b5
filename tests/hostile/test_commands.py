"""Commands on damaged files, odd names and values at their edge: the right result, or one sentence and exit code 2."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.conftest import Ended, Tiny

Command = Callable[..., Ended]


def refused(ended: Ended, *fragments: str) -> None:
    """One sentence on standard error and exit code 2."""
    assert ended.code == 2, (ended.out, ended.err)
    assert ended.err.count("\n") == 1 and all(fragment in ended.err for fragment in fragments), ended.err


EDGES = {
    "max-length 1": (["--max-length", "1"], "--max-length"),
    "max-length 0": (["--max-length", "0"], "--max-length"),
    "max-length 100000": (["--max-length", "100000"], "--max-length"),
    "max-length 10^5000": (["--max-length", "9" * 5000], "--max-length"),
    "temperature 0": (["--sample", "--temperature", "0"], "--temperature"),
    "temperature -1": (["--sample", "--temperature=-1"], "--temperature"),
    "temperature nan": (["--sample", "--temperature", "nan"], "--temperature"),
    "temperature inf": (["--sample", "--temperature", "inf"], "--temperature"),
    "temperature words": (["--sample", "--temperature", "warm"], "--temperature"),
    "temperature alone": (["--temperature", "0.3"], "--temperature"),
    "top-p -0.2": (["--sample", "--top-p=-0.2"], "--top-p"),
    "top-p 0": (["--sample", "--top-p", "0"], "--top-p"),
    "top-p 1.5": (["--sample", "--top-p", "1.5"], "--top-p"),
    "top-p nan": (["--sample", "--top-p", "nan"], "--top-p"),
    "top-p alone": (["--top-p", "0.5"], "--top-p"),
    "length-penalty nan": (["--length-penalty", "nan"], "--length-penalty"),
    "length-penalty inf": (["--length-penalty", "inf"], "--length-penalty"),
    "length-penalty sampled": (["--sample", "--length-penalty", "2"], "--length-penalty"),
    "length-penalty greedy": (["--beams", "1", "--length-penalty", "2"], "--length-penalty"),
    "seed 10^20": (["--sample", "--seed", "9" * 20], "--seed"),
    "seed -1": (["--sample", "--seed=-1"], "--seed"),
    "beams 0": (["--beams", "0"], "--beams"),
    "beams 10^6": (["--beams", "1000000"], "--beams"),
    "beams sampled": (["--sample", "--beams", "2"], "--beams"),
    "batch 0": (["--batch-size", "0"], "--batch-size"),
    "batch 1.5": (["--batch-size", "1.5"], "--batch-size"),
    "question empty": (["--ask", "  "], "--ask"),
}


@pytest.mark.parametrize("case", EDGES)
def test_generate_refuses_values_at_their_edge(case: str, tiny: Tiny, command: Command) -> None:
    words, flag = EDGES[case]
    ended = command("mmtrain", "generate", tiny.export, tiny.pictures / "0.jpg", *words)
    refused(ended, flag)
    assert ended.out == ""


# --- damaged files of an export -------------------------------------------------------------------------------------

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"  # noqa: E501
DAMAGE = {
    "gone": None,
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "lfs": lambda content: LFS,
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"hello, I am no file of this kind\n",
    "html": lambda content: b"<!DOCTYPE html><html><body>404</body></html>",
}
FILES = (
    "model.safetensors",
    "config.json",
    "tokenizer.model",
    "processor_config.json",
    "tokenizer_config.json",
    "generation_config.json",
)


def damage(file: Path, how: str) -> None:
    change = DAMAGE[how]
    if change is None:
        file.unlink()
    else:
        file.write_bytes(change(file.read_bytes()))


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_generate_names_the_damaged_file_of_an_export(
    name: str, how: str, tiny: Tiny, tiny_export: Path, command: Command
) -> None:
    damage(tiny_export / name, how)
    ended = command("mmtrain", "generate", tiny_export, tiny.pictures / "0.jpg")
    gone = "is no export (it has no config.json)" if (name, how) == ("config.json", "gone") else str(tiny_export / name)
    refused(ended, gone)
    if how == "lfs":
        assert "git-lfs pointer" in ended.err


CONFIGS = {
    "list": [1, 2],
    "other type": {"model_type": "clip"},
    "width text": {"hidden_size": "wide"},
    "width 7": {"hidden_size": 7},
    "width 0": {"hidden_size": 0},
    "patch 0": {"patch_size": 0},
    "layers 10^9": {"vision_layers": 10**9},
    "layers null": {"text_layers": None},
    "vocabulary 8": {"vocab_size": 8},
    "pieces 7": {"num_pieces": 7},
    "activation": {"vision_activation": "swoosh"},
    "answers 5": {"answers": 5},
}


@pytest.mark.parametrize("case", CONFIGS)
def test_search_names_a_config_that_does_not_fit(case: str, tiny: Tiny, tiny_export: Path, command: Command) -> None:
    file = tiny_export / "config.json"
    change = CONFIGS[case]
    config = json.loads(file.read_text())
    file.write_text(json.dumps(change if isinstance(change, list) else config | change))
    ended = command("mmtrain", "search", tiny_export, "red", "--images", tiny.pictures)
    refused(ended, str(tiny_export))


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.model"])
def test_a_run_begins_with_no_damaged_export(
    name: str, how: str, tiny: Tiny, tiny_export: Path, tmp_path: Path, command: Command
) -> None:
    damage(tiny_export / name, how)
    ended = command("mmtrain", "pretrain", *tiny.words, f"run_dir={tmp_path}/new", f"model.init_from={tiny_export}")
    assert ended.code == 2 and name in ended.err, ended.err
    assert not (tmp_path / "new" / "checkpoints").exists()


# --- lines of log.jsonl that are no rows ----------------------------------------------------------------------------

LINES = {
    "torn at the end": (None, b'{"step": 5, "ev'),
    "torn amid": (1, b'{"step": 5, "ev\n'),
    "zeros at the end": (None, bytes(64)),
    "zeros amid": (1, bytes(64) + b"\n"),
    "empty": (1, b"\n"),
    "list": (1, b"[1, 2]\n"),
    "number": (1, b"17\n"),
    "no step": (1, b'{"loss": 1.0}\n'),
    "step is text": (1, b'{"step": "five"}\n'),
    "step is true": (1, b'{"step": true}\n'),
    "eval is a list": (1, b'{"step": 1, "eval": ["a"]}\n'),
    "not UTF-8": (1, b'{"step": 1, "note": "d\xe9t"}\n'),
    "deep": (1, b'{"step":' + b"[" * 100_000 + b"\n"),
    "UTF-16": (1, '{"step": 1}'.encode("utf-16") + b"\n"),
    "binary": (1, bytes(range(256)).replace(b"\n", b"") + b"\n"),
}


def planted(run_dir: Path, case: str) -> None:
    where, line = LINES[case]
    file = run_dir / "log.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    lines.insert(len(lines) if where is None else where, line)
    file.write_bytes(b"".join(lines))


@pytest.mark.parametrize("case", LINES)
def test_compare_passes_over_lines_that_are_no_rows(case: str, tiny: Tiny, tiny_run: Path, command: Command) -> None:
    planted(tiny_run, case)
    ended = command("mmtrain", "compare", tiny_run, tiny.run_dir)
    assert ended.code == 0, ended.err
    (line,) = [line for line in ended.out.splitlines() if "masked_token_accuracy" in line]
    assert len({cell for cell in line.split() if "%" in cell}) == 1  # both runs have the same score


@pytest.mark.parametrize("case", LINES)
def test_the_log_goes_on_behind_lines_that_are_no_rows(case: str, tiny_run: Path) -> None:
    from mmtrain.monitor.log import RunLog, read_rows

    before = read_rows(tiny_run)
    planted(tiny_run, case)
    with RunLog(tiny_run, writes=True) as log:
        kept = log.cut(lambda row: row["step"] < 1 or "eval" in row)
        log.write({"step": 2, "loss": 1.0})
    assert kept == [row for row in before if "eval" in row]
    assert read_rows(tiny_run) == [*kept, {"step": 2, "loss": 1.0}]


@pytest.mark.parametrize("value", [None, "high", True, [1], {"a": 1}, 10**400], ids=str)
def test_a_score_that_is_no_number_breaks_no_export_and_no_table(
    value: object, tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    with (tiny_run / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": 1, "eval": "heldout", "lm_perplexity": value, "itm_accuracy": 0.5}) + "\n")
    ended = command("mmtrain", "export", tiny_run, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert "| heldout | lm_perplexity | no number |" in (tmp_path / "out/README.md").read_text()
    ended = command("mmtrain", "compare", tiny_run)
    assert ended.code == 0 and "50.0%" in ended.out, ended.err
