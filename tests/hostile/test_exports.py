"""Exports and resharded checkpoints over what exists: only another export is replaced, a failure leaves nothing."""

import os
import shutil

from tests.hostile.outputs import check_refused, contents


def test_an_export_replaces_an_export_and_nothing_else(tiny, tiny_run, tmp_path, command) -> None:
    out = tmp_path / "models" / "a"
    assert command("mmtrain", "export", tiny_run, "--out", out).code == 0
    (tmp_path / "models" / "notes.txt").write_text("mine")
    run_before, before = contents(tiny_run), contents(out)
    check_refused(command("mmtrain", "export", tiny_run, "--out", out), "there already", "--overwrite")
    assert contents(out) == before
    assert command("mmtrain", "export", tiny_run, "--out", out, "--overwrite", "--dtype", "bf16").code == 0
    assert len(contents(out)["model.safetensors"]) < 0.6 * len(before["model.safetensors"])
    assert contents(out).keys() == before.keys() and contents(tiny_run) == run_before
    assert sorted(path.name for path in out.parent.iterdir()) == ["a", "notes.txt"]


def test_an_export_that_fails_leaves_nothing(tiny_run, tmp_path, command, monkeypatch) -> None:
    from mmtrain.hf.processing import VLBertProcessor

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr(VLBertProcessor, "save_pretrained", fail)
    before = contents(tmp_path)
    check_refused(command("mmtrain", "export", tiny_run, "--out", tmp_path / "out"), "No space left on device")
    assert contents(tmp_path) == before and not list(tmp_path.glob("*out*"))


def test_an_export_to_a_name_that_is_no_utf_8(tiny_run, tmp_path, command) -> None:
    out = tmp_path / os.fsdecode(b"d\xe9t")
    assert command("mmtrain", "export", tiny_run, "--out", out).code == 0
    assert (out / "README.md").read_text() and (out / "tokenizer.model").exists()


def test_reshard_adds_to_no_file_and_no_checkpoints(tiny_run, tmp_path, command) -> None:
    (tmp_path / "f.txt").write_text("mine")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "checkpoints").write_text("mine")
    before = contents(tmp_path)
    for target in (tmp_path / "f.txt", tmp_path / "f.txt/x", tiny_run / "checkpoints", tmp_path / "x", tiny_run):
        check_refused(command("mmtrain", "reshard", tiny_run, "--to", target))
        assert contents(tmp_path) == before
    assert command("mmtrain", "reshard", tiny_run, "--to", tmp_path / "new").code == 0
    assert shutil.rmtree(tmp_path / "new") is None and contents(tmp_path) == before
