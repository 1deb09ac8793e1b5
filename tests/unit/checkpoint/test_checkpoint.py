"""Checkpoints of one process: what comes back, what is refused, and that a save is invisible until it is whole."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from mmtrain.checkpoint import files, folders, saving, write
from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.checkpoint.load import checked, find_or_refuse, find_whole, load_tensors
from mmtrain.checkpoint.manifest import Manifest, read_manifest
from mmtrain.parallel.slices import Slice
from tests.unit.checkpoint.made import WHOLE, Trained, here, keeper_of, loaded, saved, whole


def test_what_was_written_in_parts_is_read_whole_and_in_other_parts(tmp_path: Path) -> None:
    folder = saved(tmp_path, value=0.5)
    matrix, vector = loaded(folder)
    assert torch.equal(matrix, WHOLE + 0.5) and torch.equal(vector, torch.full((5,), 0.5))
    rows = torch.full((2, 6), torch.nan)
    load_tensors(folder, {Slice.of_part("matrix", (2, 6), 0, 1, 2): rows})
    assert torch.equal(rows, (WHOLE + 0.5)[2:])


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_keeper_gives_back_tensors_counters_and_where_the_data_stands(tmp_path: Path, asynchronous: bool) -> None:
    keeper, run = keeper_of(tmp_path, asynchronous=asynchronous), Trained(4.0)
    run.num_updates, run.position = 7, 9
    keeper.save(7, run, run)
    if asynchronous:
        for _, values in run.parts:
            values.fill_(-1.0)  # the run goes on while it is written
    keeper.finish()
    again = Trained()
    assert keeper_of(tmp_path).resume(again, again) == 7
    assert (again.num_updates, again.position) == (7, 9)
    for (_, found), (_, wanted) in zip(again.parts, Trained(4.0).parts, strict=True):
        assert torch.equal(found, wanted)


def test_a_run_folder_without_checkpoints_begins_at_the_first_step(tmp_path: Path) -> None:
    run = Trained()
    assert keeper_of(tmp_path).resume(run, run) == 0


def test_the_same_step_is_not_saved_twice(tmp_path: Path) -> None:
    run, keeper = Trained(), keeper_of(tmp_path)
    keeper.save(1, run, run)
    keeper.finish()
    before = (tmp_path / "checkpoints" / "step-00000001" / "manifest.json").stat().st_mtime_ns
    keeper.save(1, run, run)
    keeper.finish()
    again = keeper_of(tmp_path)
    again.save(again.resume(run, run), run, run)
    again.finish()
    assert (tmp_path / "checkpoints" / "step-00000001" / "manifest.json").stat().st_mtime_ns == before


def test_the_manifest_comes_back_and_latest_is_the_newest(tmp_path: Path) -> None:
    saved(tmp_path, step=1)
    newest = saved(tmp_path, step=2)
    found = find_or_refuse(tmp_path / "checkpoints")
    assert found.folder == newest
    assert (found.manifest.step, found.manifest.engine) == (2, {"num_updates": 2})
    names = ["latest", "step-00000001", "step-00000002"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == names


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", bytes(14), b"step-00000009\n", b"../../elsewhere"], ids=repr)
def test_a_latest_that_names_nothing_leaves_the_newest(content: bytes, tmp_path: Path) -> None:
    newest = saved(tmp_path)
    (tmp_path / "checkpoints" / "latest").write_bytes(content)
    assert find_or_refuse(tmp_path / "checkpoints").folder == newest


def test_every_tensor_that_is_missing_or_has_another_shape_is_named(tmp_path: Path) -> None:
    wanted = {
        whole("matrix", (4, 5)): torch.zeros(4, 5),
        whole("vector", (5,)): torch.zeros(5),
        whole("head.bias", (2,)): torch.zeros(2),
    }
    with pytest.raises(CheckpointError) as refused:
        load_tensors(saved(tmp_path, value=1.0), wanted)
    assert "matrix is (4, 6) in it and (4, 5) here" in str(refused.value)
    assert "head.bias is not in it" in str(refused.value)
    assert "vector" not in str(refused.value)
    assert not wanted[whole("vector", (5,))].any()  # nothing is filled where not all can be


def test_another_format_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    said = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**said, "format": "mmtrain-checkpoint/0"}))
    with pytest.raises(CheckpointError, match="'mmtrain-checkpoint/0'; this version reads 'mmtrain-checkpoint/3'"):
        read_manifest(folder)


def test_another_tokenizer_is_refused_and_the_knob_named() -> None:
    here().refuse_other_tokenizer("ab" * 32)
    with pytest.raises(CheckpointError, match="data.tokenizer"):
        here().refuse_other_tokenizer("cd" * 32)


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    assert find_whole(tmp_path / "checkpoints") is None
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find_or_refuse(tmp_path / "checkpoints")


def flip_a_bit(folder: Path) -> None:
    (path,) = (folder / "tensors").glob("*.distcp")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose_a_shard(folder: Path) -> None:
    next((folder / "tensors").glob("*.distcp")).unlink()


def cut_a_shard(folder: Path) -> None:
    (path,) = (folder / "tensors").glob("*.distcp")
    path.write_bytes(path.read_bytes()[:-10])


def cut_the_table(folder: Path) -> None:
    path = folder / "tensors" / "index.json"
    path.write_bytes(path.read_bytes()[:-10])


def cut_the_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:200])


def lose_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def change_the_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"step": 2', '"step": 3'))


DAMAGE = {
    flip_a_bit: "__0_0.distcp is corrupted",
    lose_a_shard: "__0_0.distcp is missing",
    cut_a_shard: "__0_0.distcp has ",
    cut_the_table: "index.json has ",
    cut_the_manifest: "manifest.json cannot be read",
    lose_the_manifest: "manifest.json cannot be read",
    change_the_manifest: "manifest.json was changed or damaged",
    shutil.rmtree: "manifest.json cannot be read",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_named_and_the_newest_whole_checkpoint_is_taken_instead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    older, newest = saved(tmp_path, step=1, value=1.0), saved(tmp_path, step=2, value=2.0)
    damage(newest)
    with pytest.raises(CheckpointError) as refused:
        checked(newest)
    assert str(newest) in str(refused.value) and DAMAGE[damage] in str(refused.value)
    caplog.set_level(logging.INFO, "mmtrain")
    run = Trained()
    assert keeper_of(tmp_path).resume(run, run) == 1
    assert torch.equal(run.parts[2][1], torch.full((5,), 1.0))
    assert any(str(newest) in said and DAMAGE[damage] in said for said in caplog.messages)
    assert any(f"going on from {older}" in said for said in caplog.messages)


def test_where_no_checkpoint_is_whole_every_fault_is_named(tmp_path: Path) -> None:
    flip_a_bit(saved(tmp_path, step=1))
    cut_the_manifest(saved(tmp_path, step=2))
    run = Trained()
    with pytest.raises(CheckpointError) as refused:
        keeper_of(tmp_path).resume(run, run)
    assert "is corrupted" in str(refused.value) and "manifest.json cannot be read" in str(refused.value)


class Killed(BaseException):
    """Stands for the end of the process, which no handler of ours catches."""


def kill(*_: object, **__: object) -> None:
    raise Killed


WAYS_TO_DIE = {
    "while the tensors are written": (files.HashedFile, "write"),
    "before the manifest": (Manifest, "write"),
    "before the folder gets its name": (write, "put_in_place"),
    "before latest is replaced": (write, "point_to"),
}


@pytest.mark.parametrize("moment", WAYS_TO_DIE)
def test_a_save_that_dies_leaves_the_older_checkpoint_the_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    checkpoints = tmp_path / "checkpoints"
    older = saved(tmp_path, step=1, value=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(*WAYS_TO_DIE[moment], kill)
        # A kill leaves nobody who could clear away what was begun.
        patch.setattr(saving.Save, "_is_over", lambda save: save._work.result() and False)
        with pytest.raises(Killed):
            saved(tmp_path, step=2, value=2.0)
    assert find_or_refuse(checkpoints).folder == older
    assert torch.equal(loaded(older)[0], WHOLE + 1.0)
    # What stands under the name of a checkpoint is whole, and the next save goes over the ruins.
    for folder in checkpoints.glob("step-????????"):
        checked(folder)
    for folder in checkpoints.glob("*.partial"):
        with pytest.raises(CheckpointError, match="cut off half-written"):
            checked(folder)
    keeper, run = keeper_of(tmp_path), Trained(3.0)
    assert keeper.resume(Trained(), Trained()) == 1
    assert not list(checkpoints.glob("*.partial"))
    keeper.save(2, run, run)
    keeper.finish()
    assert torch.equal(loaded(find_or_refuse(checkpoints).folder)[0], WHOLE + 3.0)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["latest", "step-00000001", "step-00000002"]


def test_a_checkpoint_of_the_same_step_stands_until_the_new_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path, step=1, value=1.0)
    replace = folders.os.replace
    moves = []

    def watched(source: Path, target: Path) -> None:
        if moves:
            raise Killed
        moves.append((Path(source).name, Path(target).name))
        replace(source, target)

    monkeypatch.setattr(folders.os, "replace", watched)
    with pytest.raises(Killed):
        folders.put_in_place(folder.with_name("step-00000001.partial"), folder)
    assert moves == [("step-00000001", "step-00000001.replaced")]
    monkeypatch.undo()
    run = Trained()
    assert keeper_of(tmp_path).resume(run, run) == 1
    assert torch.equal(run.parts[2][1], torch.full((5,), 1.0))


def test_the_last_few_and_every_nth_checkpoint_stay(tmp_path: Path) -> None:
    keeper, run = keeper_of(tmp_path, keep_last=2, keep_every=4), Trained()
    for step in range(1, 8):
        keeper.save(step, run, run)
    keeper.finish()
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["latest", *(f"step-{step:08d}" for step in (4, 6, 7))]
