"""Checkpoints of one process: what is refused, and that a save is invisible until it is whole."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from mmtrain.checkpoint import save
from mmtrain.checkpoint.keeper import Keeper
from mmtrain.checkpoint.manifest import Manifest, find_latest, read_manifest
from mmtrain.checkpoint.planners import CheckpointError
from mmtrain.parallel.slices import Slice

if TYPE_CHECKING:
    from mmtrain.engine.build import Place

Parts = list[tuple[Slice, torch.Tensor]]
WHOLE = torch.arange(24.0).reshape(4, 6)


def whole(name: str, shape: tuple[int, ...]) -> Slice:
    return Slice.of_part(name, shape, None, 0, 1)


def rectangles(value: float = 0.0) -> Parts:
    """`matrix` in two halves that do not touch in memory, and `vector`."""
    halves = [(Slice.of_part("matrix", (4, 3), 1, part, 2), (WHOLE + value)[:, 3 * part :][:, :3]) for part in (0, 1)]
    return [*halves, (whole("vector", (5,)), torch.full((5,), value))]


def manifest(step: int) -> Manifest:
    return Manifest(step, {"seed": 1}, {"step": step}, tokenizer_sha256="ab" * 32, num_pieces=60)


def saved(folder: Path, step: int = 1, value: float = 0.0) -> Path:
    return save.save_checkpoint(folder, manifest(step), rectangles(value), is_first=True)


def loaded(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    matrix, vector = torch.full((4, 6), torch.nan), torch.full((5,), torch.nan)
    save.load_tensors(folder, {whole("matrix", (4, 6)): matrix, whole("vector", (5,)): vector})
    return matrix, vector


def test_what_was_written_in_parts_is_read_whole_and_in_other_parts(place: "Place", tmp_path: Path) -> None:
    folder = saved(tmp_path, value=0.5)
    matrix, vector = loaded(folder)
    assert torch.equal(matrix, WHOLE + 0.5) and torch.equal(vector, torch.full((5,), 0.5))
    rows = torch.full((2, 6), torch.nan)
    save.load_tensors(folder, {Slice.of_part("matrix", (2, 6), 0, 1, 2): rows})
    assert torch.equal(rows, (WHOLE + 0.5)[2:])


def test_the_manifest_comes_back_and_latest_is_the_newest(place: "Place", tmp_path: Path) -> None:
    saved(tmp_path, step=1)
    newest = saved(tmp_path, step=2)
    assert find_latest(tmp_path) == newest
    assert read_manifest(newest) == manifest(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000001", "step-00000002"]


def test_every_tensor_that_is_missing_or_has_another_shape_is_named(place: "Place", tmp_path: Path) -> None:
    wanted = {
        whole("matrix", (4, 5)): torch.zeros(4, 5),
        whole("vector", (5,)): torch.zeros(5),
        whole("head.bias", (2,)): torch.zeros(2),
    }
    with pytest.raises(CheckpointError) as refused:
        save.load_tensors(saved(tmp_path), wanted)
    assert "matrix is (4, 6) in it and (4, 5) here" in str(refused.value)
    assert "head.bias is not in it" in str(refused.value)
    assert "vector" not in str(refused.value)
    assert not wanted[whole("vector", (5,))].any()  # nothing is filled where not all can be


def test_a_checkpoint_without_its_tensors_is_refused(place: "Place", tmp_path: Path) -> None:
    folder = saved(tmp_path)
    next((folder / "tensors").glob("*.distcp")).unlink()
    with pytest.raises(CheckpointError, match="step-00000001 cannot be loaded"):
        loaded(folder)
    (folder / "tensors" / ".metadata").unlink()
    with pytest.raises(CheckpointError, match="step-00000001 cannot be loaded"):
        loaded(folder)


def test_a_folder_without_a_readable_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    for content in (
        None,
        "",
        "{",
        "[]",
        '{"format": "mmtrain-checkpoint/1"}',
        '{"format": "mmtrain-checkpoint/1", "x": 1}',
    ):
        if content is not None:
            (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(CheckpointError, match="manifest.json|format"):
            read_manifest(tmp_path)


def test_another_format_is_refused_by_its_name(place: "Place", tmp_path: Path) -> None:
    folder = saved(tmp_path)
    said = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**said, "format": "mmtrain-checkpoint/0"}))
    with pytest.raises(CheckpointError, match="'mmtrain-checkpoint/0'; this version reads 'mmtrain-checkpoint/1'"):
        read_manifest(folder)


def test_another_tokenizer_is_refused_and_the_knob_named() -> None:
    manifest(1).refuse_other_tokenizer("ab" * 32)
    with pytest.raises(CheckpointError, match="data.tokenizer"):
        manifest(1).refuse_other_tokenizer("cd" * 32)


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find_latest(tmp_path / "checkpoints")


class Killed(BaseException):
    """Stands for the end of the process, which no handler of ours catches."""


def kill(*_: object, **__: object) -> None:
    raise Killed


def killed_parts() -> Iterator[tuple[Slice, torch.Tensor]]:
    yield rectangles()[0]
    raise Killed


WAYS_TO_DIE = {
    "while the weights are gathered": None,
    "while the tensors are written": (save.checkpoint, "save"),
    "before the manifest": (Manifest, "write"),
    "before the folder gets its name": (save.os, "replace"),
    "before latest is replaced": (save, "_point_to"),
}


@pytest.mark.parametrize("moment", WAYS_TO_DIE)
def test_a_save_that_dies_leaves_the_older_checkpoint_the_latest(
    place: "Place", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    older = saved(tmp_path, step=1, value=1.0)
    with monkeypatch.context() as patch:
        if target := WAYS_TO_DIE[moment]:
            patch.setattr(*target, kill)
        with pytest.raises(Killed):
            parts = rectangles(2.0) if target else killed_parts()
            save.save_checkpoint(tmp_path, manifest(2), parts, is_first=True)
    assert find_latest(tmp_path) == older
    assert torch.equal(loaded(older)[0], WHOLE + 1.0)
    # What stands under the name of a checkpoint is whole, and the next save goes over the ruins.
    for folder in tmp_path.glob("step-????????"):
        read_manifest(folder)
    again = saved(tmp_path, step=2, value=3.0)
    assert find_latest(tmp_path) == again and torch.equal(loaded(again)[0], WHOLE + 3.0)
    assert not list(tmp_path.glob("*.partial"))


class Trained:
    """An engine and a stream, as far as a keeper knows them."""

    def weights(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        yield from rectangles(4.0)

    def state(self) -> dict[str, object]:
        return {"step": 7, "order_hash": "0f"}


def test_a_keeper_writes_weights_config_and_where_the_data_stands(place: "Place", tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, {"seed": 3}, tokenizer_sha256="ef" * 32, num_pieces=60, is_first=True)
    keeper.save(7, Trained(), Trained())
    folder = find_latest(tmp_path / "checkpoints")
    kept = read_manifest(folder)
    assert (kept.step, kept.config, kept.stream) == (7, {"seed": 3}, {"step": 7, "order_hash": "0f"})
    assert (kept.tokenizer_sha256, kept.num_pieces) == ("ef" * 32, 60)
    assert torch.equal(loaded(folder)[0], WHOLE + 4.0)
