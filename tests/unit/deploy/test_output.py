"""What an export may replace, and that a failed one leaves nothing."""

import json
from pathlib import Path

import pytest

from mmtrain.deploy.output import check_export_output, new_export
from mmtrain.export import main
from mmtrain.io.errors import StorageError


def written_export(folder: Path, **extra: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "vlbert"}))
    for name in ("model.safetensors", "README.md", "tokenizer_config.json"):
        (folder / name).write_text("old")
    for name, text in extra.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What of a run's folder the checks look at."""
    (tmp_path / "runs" / "base" / "checkpoints" / "step-00000004").mkdir(parents=True)
    (tmp_path / "runs" / "notes.txt").write_text("mine")
    return tmp_path / "runs" / "base"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("runs/base", "the same folder"),
        ("runs", "inside --out"),
        (".", "inside --out"),
        ("runs/base/checkpoints", "among the checkpoints"),
        ("runs/base/checkpoints/x", "among the checkpoints"),
        ("runs/base/../base", "the same folder"),
        ("to-run", "the same folder"),
        ("f.txt", "which is a file"),
        ("dead", "a link to nothing"),
        ("f.txt/x", "is no folder"),
    ],
)
def test_places_that_are_never_written_to(run, tmp_path, monkeypatch, capsys, out, reason, overwrite) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.txt").write_text("mine")
    (tmp_path / "dead").symlink_to("gone")
    (tmp_path / "to-run").symlink_to("runs/base")
    before = contents(tmp_path)
    assert main([str(run), "--out", out, *overwrite]) == 2
    said = capsys.readouterr().err
    assert reason in said and said.count("\n") == 1
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: folder.mkdir() or (folder / "precious.txt").write_text("mine"), "it has no config.json"),
        (lambda folder: written_export(folder, **{"notes.txt": "mine"}), "it holds notes.txt"),
        (lambda folder: (written_export(folder) / "checkpoints").mkdir(), "the folder of a run"),
        (lambda folder: (written_export(folder) / "model.bin").mkdir(), "it holds model.bin"),
        (lambda folder: (written_export(folder) / "config.json").write_text("{}"), "of another model"),
        (lambda folder: (written_export(folder) / "config.json").write_text("["), "cannot be read"),
        (lambda folder: (written_export(folder) / "config.json").write_text("[1]"), "of another model"),
    ],
)
def test_only_an_export_is_replaced(run, tmp_path, capsys, make, reason) -> None:
    make(tmp_path / "out")
    before = contents(tmp_path)
    assert main([str(run), "--out", str(tmp_path / "out")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([str(run), "--out", str(tmp_path / "out"), "--overwrite"]) == 2
    said = capsys.readouterr().err
    assert reason in said and said.count("\n") == 1
    assert contents(tmp_path) == before


def test_an_export_is_replaced_whole_also_behind_a_link(run: Path, tmp_path: Path) -> None:
    old = written_export(tmp_path / "models" / "a")
    (tmp_path / "link").symlink_to(old)
    check_export_output(run, tmp_path / "link", overwrite=True)
    with new_export(tmp_path / "link", overwrite=True) as new:
        (new / "config.json").write_text("new")
        assert contents(old)["config.json"] != b"new"
    assert contents(old) == {"config.json": b"new"} and (tmp_path / "link").is_symlink()
    assert [path.name for path in old.parent.iterdir()] == ["a"]


def test_a_failed_export_leaves_what_was_there(run: Path, tmp_path: Path) -> None:
    old = written_export(tmp_path / "a")
    for out in (old, tmp_path / "b"):
        with pytest.raises(OSError), new_export(out, overwrite=True) as new:
            (new / "config.json").write_text("half")
            raise OSError("disk full")
    assert contents(old)["config.json"] == b'{"model_type": "vlbert"}'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "runs"]


def test_what_somebody_writes_meanwhile_stays(run: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="meanwhile"), new_export(tmp_path / "a", overwrite=False) as new:
        (new / "config.json").write_text("new")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "theirs").write_text("mine")
    assert contents(tmp_path / "a") == {"theirs": b"mine"}
