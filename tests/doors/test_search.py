"""Pictures found by words through the door: indexed once, asked often; what cannot be read is named and passed over."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mmtrain.search import main
from tests.doors.test_export import pictures

QUERY = "a small red star above a large blue ring"


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures, and a file that is none."""
    folder = tmp_path_factory.mktemp("album")
    for number, picture in enumerate(pictures(5)):
        picture.save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG no picture")
    return folder


@dataclass(frozen=True)
class Ended:
    """How the door was left, and all that it said."""

    code: int
    said: str


@pytest.fixture
def search(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def walk(*words: object) -> Ended:
        code = main([str(word) for word in words])
        return Ended(code, "".join(capfd.readouterr()))

    return walk


def test_an_index_is_made_once_and_asked_in_words(
    exported: Path, album: Path, tmp_path: Path, search: Callable[..., Ended]
) -> None:
    from PIL import Image

    from mmtrain.hf import VLBertForImageTextRetrieval

    index, out = tmp_path / "album.npz", tmp_path / "found.jsonl"
    ended = search(exported / "export", "--images", album, "--index", index)
    assert ended.code == 1 and f"{album}/broken.png passed over: " in ended.said, ended.said
    with np.load(index, allow_pickle=False) as found:
        paths, embeddings_NE = [str(path) for path in found["paths"]], found["embeddings"]
    assert paths == [str(album / f"{number}.png") for number in range(5)]
    model = VLBertForImageTextRetrieval.from_pretrained(exported / "export").eval()
    images = [Image.open(path) for path in paths]
    wanted_NE = model.vlbert.get_image_features(model.pixels_of(images)).detach().numpy()
    np.testing.assert_allclose(embeddings_NE, wanted_NE, atol=1e-5)
    ended = search(exported / "export", QUERY, "--index", index, "--top", 3, "--shortlist", 5, "--jsonl", out)
    assert ended.code == 0, ended.said
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 3 and all(f"{row['path']}" in ended.said for row in rows)
    best = model.retrieve(QUERY, images, top_k=3, shortlist=5)
    assert [row["path"] for row in rows] == [paths[number] for number, _ in best]
    assert [row["match"] for row in rows] == pytest.approx([probability for _, probability in best], abs=1e-4)


def test_what_does_not_fit_is_one_sentence(
    exported: Path, album: Path, tmp_path: Path, search: Callable[..., Ended]
) -> None:
    from mmtrain.deploy.models import load_model
    from mmtrain.deploy.search import PictureIndex
    from mmtrain.hf import VLBertForImageTextRetrieval
    from mmtrain.io.errors import InputError

    other = tmp_path / "other"
    shutil.copytree(exported / "export", other)
    model = load_model(other, VLBertForImageTextRetrieval)
    PictureIndex((str(album / "0.png"),), np.zeros((1, 16), np.float32), "another space").save(tmp_path / "index.npz")
    with pytest.raises(InputError, match="index.npz was made with another model; make it anew"):
        PictureIndex.load(tmp_path / "index.npz", model)
    with pytest.raises(InputError, match="broken.png is no index that can be read"):
        PictureIndex.load(album / "broken.png", model)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_pieces": 7}))
    ended = search(other, QUERY, "--images", album)
    assert ended.code == 2 and "but the model was trained with one of 7; bring back its own" in ended.said, ended.said
    (other / "config.json").write_text(json.dumps(config | {"model_type": "clip"}))
    with pytest.raises(InputError, match="is a model of type 'clip'; wanted an export"):
        load_model(other, VLBertForImageTextRetrieval)
