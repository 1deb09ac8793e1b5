"""Commands on damaged files, odd names and values at their edge: the right result, or one sentence and exit code 2."""

import errno
import io
import json
import os
import pickle
import re
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mmtrain.io.text import printable
from tests.hostile.conftest import Ended, Tiny
from tests.unit.io.test_console import Gone

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
    "temperature below float32": (["--sample", "--temperature", "1e-40"], "--temperature"),
    "temperature above float32": (["--sample", "--temperature", "1e300"], "--temperature"),
    "temperature words": (["--sample", "--temperature", "warm"], "--temperature"),
    "temperature alone": (["--temperature", "0.3"], "--temperature"),
    "top-p -0.2": (["--sample", "--top-p=-0.2"], "--top-p"),
    "top-p 0": (["--sample", "--top-p", "0"], "--top-p"),
    "top-p 1.5": (["--sample", "--top-p", "1.5"], "--top-p"),
    "top-p nan": (["--sample", "--top-p", "nan"], "--top-p"),
    "top-p alone": (["--top-p", "0.5"], "--top-p"),
    "length-penalty nan": (["--length-penalty", "nan"], "--length-penalty"),
    "length-penalty inf": (["--length-penalty", "inf"], "--length-penalty"),
    "length-penalty 1e308": (["--beams", "3", "--length-penalty", "1e308"], "--length-penalty"),
    "length-penalty -1e308": (["--beams", "3", "--length-penalty=-1e308"], "--length-penalty"),
    "length-penalty sampled": (["--sample", "--length-penalty", "2"], "--length-penalty"),
    "length-penalty greedy": (["--beams", "1", "--length-penalty", "2"], "--length-penalty"),
    "seed 10^20": (["--sample", "--seed", "9" * 20], "--seed"),
    "seed -1": (["--sample", "--seed=-1"], "--seed"),
    "beams 0": (["--beams", "0"], "--beams"),
    "beams 10^6": (["--beams", "1000000"], "--beams"),
    "beams sampled": (["--sample", "--beams", "2"], "--beams"),
    "batch 0": (["--batch-size", "0"], "--batch-size"),
    "batch 1.5": (["--batch-size", "1.5"], "--batch-size"),
    "output empty": (["--jsonl", ""], "--jsonl"),
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
    "heads 10^12": {"num_heads": 10**12},
    "heads 5": {"num_heads": 5},
    "text width 10": {"text_hidden_size": 10},
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


# --- names ----------------------------------------------------------------------------------------------------------

NAMES = (
    "[/y]", "[red]r[b]", ":smile:", b"d\xe9t", "a\nb", "a\tb", "e\x1b[31mred", "quo\"te'", "--dash", "~", "$HOME",
    "{a,b}", "*", "right\u202eleft", "é☃", " ",
)  # fmt: skip


def folder_of(parent: Path, name: str | bytes) -> Path:
    folder = parent / os.fsdecode(name)
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_runs_of_any_name_are_compared_and_shown_as_they_are(
    name: str | bytes, tiny: Tiny, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, name)
    shutil.copyfile(tiny.run_dir / "log.jsonl", folder / "log.jsonl")
    monkeypatch.chdir(tmp_path)  # short names: columns fold long ones
    name = os.fsdecode(name)
    ended = command("mmtrain", "compare", f"./{name}", "--json", "table.jsonl")
    assert ended.code == 0, ended.err
    (heads,) = [line for line in ended.out.splitlines() if "evaluation" in line]
    assert heads.split("┃")[4].strip() == printable(name).strip()
    assert "\x1b" not in ended.out
    first, *_ = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()]
    assert list(first["values"]) == [name]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_an_export_of_any_name_is_written_and_asked(
    name: str | bytes, tiny: Tiny, tmp_path: Path, command: Command
) -> None:
    folder = folder_of(tmp_path, name)
    picture = shutil.copyfile(tiny.pictures / "0.jpg", folder / f"{os.fsdecode(name)}.jpg".replace("/", "~"))
    ended = command("mmtrain", "export", tiny.run_dir, "--out", folder / "out")
    assert ended.code == 0, ended.err
    ended = command("mmtrain", "generate", folder / "out", picture, "--jsonl", folder / "o.jsonl", "--max-length", "4")
    assert ended.code == 0, ended.err
    (line,) = ended.out.splitlines()
    shown, caption = line.split("\t")
    assert shown == printable(str(picture))
    assert json.loads((folder / "o.jsonl").read_text()) == {"image": str(picture), "caption": caption}
    index = folder / "index"
    assert command("mmtrain", "search", folder / "out", "--images", picture, "--index", index).code == 0
    ended = command("mmtrain", "search", folder / "out", "red", "--index", index, "--jsonl", folder / "s.jsonl")
    assert ended.code == 0 and shown in ended.out, ended.err
    assert json.loads((folder / "s.jsonl").read_text())["path"] == str(picture)


LONG = "a" * 400
TOO_LONG = [
    ["generate", "EXPORT", LONG],
    ["generate", LONG, "PICTURES/0.jpg"],
    ["generate", "EXPORT", "PICTURES/0.jpg", "--jsonl", LONG],
    ["search", "EXPORT", "red", "--images", LONG],
    ["search", "EXPORT", "red", "--index", LONG],
    ["search", "EXPORT", "--images", "PICTURES", "--index", LONG],
    ["export", LONG],
    ["export", "RUN", "--out", LONG],
    ["compare", LONG],
    ["compare", "RUN", "--json", LONG],
    ["reshard", LONG],
    ["reshard", "RUN", "--to", LONG],
    ["evaluate", LONG],
    ["plan", "--config", LONG],
    ["pretrain", "--config", LONG],
    ["finetune", "--task", "caption", f"model.init_from={LONG}"],
    ["preflight", "run", "--world", "1", "--config", LONG],
]


def filled(words: list[str], tiny: Tiny) -> list[str]:
    places = {"EXPORT": tiny.export, "RUN": tiny.run_dir, "PICTURES": tiny.pictures}
    return [re.sub("^(EXPORT|RUN|PICTURES)", lambda found: str(places[found[0]]), word) for word in words]


@pytest.mark.parametrize("words", TOO_LONG, ids=lambda words: " ".join(words).replace(LONG, "LONG"))
def test_a_name_that_is_too_long_is_a_sentence(words: list[str], tiny: Tiny, command: Command) -> None:
    ended = command("mmtrain", *filled(words, tiny))
    assert ended.code == 2 and "too long" in ended.err and ended.err.startswith("mmtrain: "), ended.err
    assert all(line.startswith(("mmtrain: ", "  - ")) for line in ended.err.splitlines())


# --- outputs --------------------------------------------------------------------------------------------------------

OUTPUTS = {
    "generate": ["generate", "EXPORT", "PICTURES/0.jpg", "--jsonl"],
    "search": ["search", "EXPORT", "red", "--images", "PICTURES", "--jsonl"],
    "index": ["search", "EXPORT", "--images", "PICTURES", "--index"],
    "compare": ["compare", "RUN", "--json"],
}


@pytest.mark.parametrize("case", ["folder", "no parent", "there", "below a file", "/proc/x.npz"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_that_cannot_be_is_refused_before_any_work(
    output: str, case: str, tiny: Tiny, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmtrain.hf.export_folder.load_export", None)  # the model is not even looked at
    monkeypatch.setattr("mmtrain.deploy.models.load_export", None)
    path = tmp_path / "out.npz"
    if case == "folder":
        path.mkdir()
    elif case == "no parent":
        path = tmp_path / "gone" / "out.npz"
    elif case == "there":
        path.write_text("mine")
    elif case == "below a file":
        (tmp_path / "file").write_text("mine")
        path = tmp_path / "file" / "out.npz"
    else:
        path = Path(case)
    if case == "/proc/x.npz":
        monkeypatch.undo()  # only the file system itself can tell
    ended = command("mmtrain", *filled(OUTPUTS[output], tiny), path)
    refused(ended, str(path) if case != "below a file" else str(tmp_path))
    assert case != "there" or path.read_text() == "mine"


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_of_ours_is_replaced_when_asked(output: str, tiny: Tiny, tmp_path: Path, command: Command) -> None:
    words = [*filled(OUTPUTS[output], tiny), tmp_path / "out.npz"]
    assert command("mmtrain", *words).code == 0
    before = (tmp_path / "out.npz").stat().st_ino
    assert command("mmtrain", *words).code == 2
    assert command("mmtrain", *words, "--overwrite").code == 0
    assert (tmp_path / "out.npz").stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


@contextmanager
def no_file_above(num_bytes: int) -> Iterator[None]:
    """Writes beyond fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


FULL = {
    "generate of a run": ["generate", "RUN", "PICTURES/0.jpg"],
    "search of a run": ["search", "RUN", "red", "--images", "PICTURES"],
    "export": ["export", "RUN", "--out", "OUT/out"],
    "reshard": ["reshard", "RUN", "--to", "OUT/out"],
    "index": ["search", "EXPORT", "--images", "PICTURES", "--index", "OUT/out.npz"],
    "jsonl": ["generate", "EXPORT", "PICTURES", "--jsonl", "OUT/out.jsonl", "--batch-size", "1"],
    "compare": ["compare", "RUN", "--json", "OUT/out.jsonl"],
}


@pytest.mark.parametrize("case", FULL)
def test_a_full_disk_is_named_and_leaves_nothing_half_written(
    case: str, tiny: Tiny, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    words = [word.replace("OUT", str(tmp_path / "out")) for word in filled(FULL[case], tiny)]
    with no_file_above(100):
        ended = command("mmtrain", *words)
    refused(ended, "File too large", str(tmp_path))
    assert list((tmp_path / "tmp").iterdir()) == [] and list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_a_lost_output_loses_no_line_of_the_file(
    number: int, tiny: Tiny, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", Gone(number))
    words = ["generate", tiny.export, tiny.pictures, "--max-length", "3"]
    assert command("mmtrain", *words, "--jsonl", tmp_path / "o.jsonl").code == 0
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 4
    assert command("mmtrain", *words).code == (0 if number == errno.EPIPE else 2)


def test_an_interruption_keeps_what_was_shown(
    tiny: Tiny, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmtrain.deploy import captions

    calls = []

    def interrupted(path: Path) -> object:
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return opened(path)

    opened = captions.opened
    monkeypatch.setattr(captions, "opened", interrupted)
    words = ["generate", tiny.export, tiny.pictures, "--batch-size", "1", "--max-length", "3"]
    ended = command("mmtrain", *words, "--jsonl", tmp_path / "o.jsonl")
    assert ended.code == 130 and ended.err == "mmtrain: interrupted\n"
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [f"{row['image']}\t{row['caption']}" for row in rows] == ended.out.splitlines() and len(rows) == 2


# --- pictures and indexes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_every_argument_has_a_line_and_every_file_one_place_in_an_index(
    batch_size: int, tiny: Tiny, tmp_path: Path, command: Command
) -> None:
    twice = [tiny.pictures / "0.jpg", tiny.pictures / "1.jpg", tiny.pictures / "0.jpg"]
    batch = ["--batch-size", batch_size]
    ended = command("mmtrain", "generate", tiny.export, *twice, *batch, "--max-length", "3")
    assert [line.split("\t")[0] for line in ended.out.splitlines()] == [str(path) for path in twice]
    ended = command("mmtrain", "search", tiny.export, "red", "--images", *twice, tiny.pictures, *batch)
    assert ended.out.count("0.jpg") == 1 and ended.out.count(".jpg") == 4


def test_pictures_that_cannot_be_read_are_named_and_the_others_done(
    tiny: Tiny, tmp_path: Path, command: Command
) -> None:
    album = shutil.copytree(tiny.pictures, tmp_path / "album")
    (album / "4.jpg").write_bytes(b"\xff\xd8 no picture")
    (album / "5.png").write_bytes(b"")
    for verb, words in (("generate", ["--max-length", "3"]), ("search", ["red"])):
        places = ["--images", album] if verb == "search" else [album]
        ended = command("mmtrain", verb, tiny.export, *words, *places)
        assert ended.code == 1 and ended.out.count(".jpg") == 4, ended.err
        assert all(f"{album / name} passed over: " in ended.err for name in ("4.jpg", "5.png"))


def test_an_index_has_one_name_and_answers_from_any_folder(
    tiny: Tiny, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny.pictures, tmp_path / "a/pictures")
    monkeypatch.chdir(tmp_path / "a")
    made = command("mmtrain", "search", tiny.export, "--images", "pictures", "--index", "photos")
    assert made.out == "photos.npz: 4 embeddings of 8\n"
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    found = {
        command("mmtrain", "search", tiny.export, "red", "--index", name).out
        for name in ("../a/photos", "../a/photos.npz", tmp_path / "a/photos")
    }
    (out,) = found
    assert out.count(str(tmp_path / "a/pictures")) == 4


INDEXES = {
    "empty": lambda made: b"",
    "cut": lambda made: made[: len(made) // 2],
    "lfs": lambda made: LFS,
    "zeros": lambda made: bytes(len(made)),
    "pickle": lambda made: pickle.dumps({"paths": []}),
    "npy": lambda made: saved(np.save, np.zeros(3)),
    "objects": lambda made: saved(np.savez, paths=np.array([{}], object), embeddings=np.zeros((1, 8)), space="x"),
    "no paths": lambda made: saved(np.savez, embeddings=np.zeros((1, 8), np.float32), space="x"),
    "other": lambda made: saved(np.savez, paths=["a"], embeddings=np.zeros((1, 8), np.float32), space="x"),
    "packed": lambda made: saved(np.savez_compressed, paths=["a"], embeddings=np.zeros((9, 8), np.float32), space="x"),
    "fewer": lambda made: altered(made, embeddings=np.zeros((2, 8), np.float32)),
    "wider": lambda made: altered(made, embeddings=np.zeros((4, 9), np.float32)),
    "nan": lambda made: altered(made, embeddings=np.full((4, 8), np.nan, np.float32)),
    "float64": lambda made: altered(made, embeddings=np.zeros((4, 8))),
    "numbers": lambda made: altered(made, paths=np.arange(4)),
    "flat": lambda made: altered(made, embeddings=np.zeros(32, np.float32)),
}


def saved(how: Callable[..., None], *arrays: np.ndarray, **named: object) -> bytes:
    file = io.BytesIO()
    how(file, *arrays, **named)
    return file.getvalue()


def altered(made: bytes, **arrays: np.ndarray) -> bytes:
    with np.load(io.BytesIO(made)) as found:
        return saved(np.savez, **(dict(found) | arrays))


@pytest.mark.parametrize("case", INDEXES)
def test_a_damaged_or_foreign_index_is_refused(case: str, tiny: Tiny, tmp_path: Path, command: Command) -> None:
    file = tmp_path / "index.npz"
    assert command("mmtrain", "search", tiny.export, "--images", tiny.pictures, "--index", file).code == 0
    file.write_bytes(INDEXES[case](file.read_bytes()))
    ended = command("mmtrain", "search", tiny.export, "red", "--index", file)
    refused(ended, str(file), "git-lfs pointer" if case == "lfs" else "--images")


def test_a_foreign_file_is_never_replaced_by_an_index(tiny: Tiny, tmp_path: Path, command: Command) -> None:
    (tmp_path / "data.npz").write_bytes(saved(np.savez, x=np.zeros(3)))
    before = (tmp_path / "data.npz").read_bytes()
    words = ["--images", tiny.pictures, "--index", tmp_path / "data.npz", "--overwrite"]
    refused(command("mmtrain", "search", tiny.export, *words), "which is not an index of this command")
    assert (tmp_path / "data.npz").read_bytes() == before


# --- other commands -------------------------------------------------------------------------------------------------

WRONG = {
    "no verb": (["pretran"], "did you mean pretrain?"),
    "verb of markup": (["[/x]"], "'[/x]' is not a verb"),
    "verb of signs": (["a\nb\x1b"], r"'a\nb\x1b' is not a verb"),
    "world 0": (["plan", "--world", "0"], "--world"),
    "world 10^30": (["plan", "--world", "1" + "0" * 30], "--world"),
    "memory nan": (["plan", "--memory-gib", "nan"], "--memory-gib"),
    "memory -1": (["plan", "--memory-gib=-1"], "--memory-gib"),
    "pieces -1": (["plan", "--pieces=-1"], "--pieces"),
    "step -1": (["export", "RUN", "--step=-1"], "--step"),
    "step 99": (["export", "RUN", "--step", "99", "--out", "/nowhere/x"], "step"),
    "dtype": (["export", "RUN", "--dtype", "int3"], "--dtype"),
    "top 0": (["search", "EXPORT", "red", "--images", "PICTURES", "--top", "0"], "--top"),
    "shortlist": (["search", "EXPORT", "red", "--images", "PICTURES", "--shortlist", "x"], "--shortlist"),
    "query empty": (["search", "EXPORT", " ", "--images", "PICTURES"], "QUERY"),
    "query bytes": (["search", "EXPORT", "d\udce9t", "--images", "PICTURES"], "QUERY"),
    "question bytes": (["generate", "EXPORT", "PICTURES/0.jpg", "--ask", "d\udce9t?"], "--ask"),
    "nothing to search": (["search", "EXPORT"], "nothing to search"),
    "no index": (["search", "EXPORT", "red", "--index", "/nowhere/i.npz"], "/nowhere/i.npz"),
    "compare nothing": (["compare", "/nowhere"], "is no run and holds none"),
    "compare no score": (["compare", "RUN", "--scores", "nothing*"], "hold no held-out score"),
    "reshard nothing": (["reshard", "/nowhere"], "/nowhere"),
    "reshard dtype alone": (["reshard", "RUN", "--dtype", "bf16"], "add --to RUN"),
    "evaluate nothing": (["evaluate", "/nowhere"], "/nowhere"),
    "evaluate elsewhere": (["evaluate", "RUN", "--captions", "data.heldout=/nowhere"], "/nowhere"),
    "preflight world": (["preflight", "run", "--config", "x", "--world", "0"], "--world"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_word_is_a_sentence_and_exit_code_2(case: str, tiny: Tiny, command: Command) -> None:
    words, fragment = WRONG[case]
    ended = command("mmtrain", *filled(words, tiny))
    assert ended.code == 2 and fragment in ended.err and len(ended.err.splitlines()) <= 2, ended.err


def test_overrides_may_stand_behind_flags(tiny: Tiny, tiny_run: Path, command: Command) -> None:
    ended = command("mmtrain", "evaluate", tiny_run, "--captions", f"data.heldout={tiny.heldout}")
    assert ended.code == 0 and "caption" in ended.out, ended.err


# --- towers of others -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP as Hugging Face writes it."""
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    inner = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=inner | {"vocab_size": 64}, vision_config=inner | {"image_size": 32, "patch_size": 8},
        projection_dim=8,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return folder


TOWERS = {
    **{f"{how} {name}": (name, how) for name in ("model.safetensors", "preprocessor_config.json") for how in DAMAGE},
    "no deviation": ("preprocessor_config.json", {"image_mean": [0.5] * 3, "image_std": [0, 0, 0]}),
    "a mean of words": ("preprocessor_config.json", {"image_mean": "grey", "image_std": [1, 1, 1]}),
    "a list": ("preprocessor_config.json", [1]),
    "no heads": ("config.json", {"model_type": "clip", "vision_config": {"num_attention_heads": 0}}),
    "words": ("config.json", {"model_type": "clip", "vision_config": "large"}),
}


@pytest.mark.parametrize("case", TOWERS)
def test_a_run_begins_with_no_damaged_tower(
    case: str, clip: Path, tiny: Tiny, tmp_path: Path, command: Command
) -> None:
    folder = shutil.copytree(clip, tmp_path / "clip")
    name, how = TOWERS[case]
    if isinstance(how, str):
        damage(folder / name, how)
    else:
        (folder / name).write_text(json.dumps(how))
    words = ["model.init_towers=vision", "model.vision_activation=quick_gelu", "model.vision_entry_norm=true"]
    ended = command("mmtrain", "pretrain", *tiny.words, *words, f"run_dir={tmp_path}/new", f"model.init_from={folder}")
    if case == "gone preprocessor_config.json":  # CLIP's own numbers hold
        assert ended.code == 0, ended.err
        return
    assert ended.code == 2 and ended.err.startswith("mmtrain: ") and name in ended.err, ended.err
    assert not (tmp_path / "new" / "checkpoints").exists()


def test_an_answer_comes_without_a_warning(tiny: Tiny, command: Command) -> None:
    ended = command("mmtrain", "generate", tiny.export, tiny.pictures / "0.jpg", "--ask", "what?", "--max-length", "1")
    assert (ended.code, ended.err) == (0, "") and ended.out.count("\n") == 1
