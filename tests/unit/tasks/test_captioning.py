"""Captions and answers about held-out sets as people make them, scored by a tiny model that was never trained."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mmtrain.config.schema import DataConfig, MlmConfig
from mmtrain.data.heldout import HeldOut
from mmtrain.data.questions import Asking
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.records import EvalReport
from mmtrain.tasks.caption import CaptionScorer, most_central
from mmtrain.tasks.vqa import VqaScorer
from tests.helpers import tiny_plan
from tests.unit.data.made import caption_of, files_of, picture, train_tokenizer, write_set, write_tar

if TYPE_CHECKING:
    from mmtrain.engine.build import Place

NUM_SAMPLES = 8
OURS = [
    {"shape": "star", "color": "red", "size": "small", "cell": [0, 1]},
    {"shape": "ring", "color": "blue", "size": "large", "cell": [1, 1]},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    captions = [caption_of(number) for number in range(200)]
    return Tokenizer(train_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.model", captions))


@pytest.fixture(scope="module")
def report_of(place: "Place", tokenizer: Tokenizer) -> Callable[..., EvalReport]:
    """The scores of a held-out set by a model of two layers."""
    from mmtrain.engine.build import build_model, build_passes

    plans = {
        name: tiny_plan(
            model={"max_text_length": 12, "image_size": 16},
            train={"micro_batch_size": 4, "global_batch_size": 16},
            task={"name": name, "num_beams": 1, "max_new_tokens": 3},
        )
        for name in ("caption", "vqa")
    }
    model, _ = build_model(plans["caption"], place, tokenizer.num_pieces)
    passes = build_passes(plans["caption"], place, model.eval(), model)

    def report(folder: Path | Sequence[Path], name: str = "caption", num_pairs: int = NUM_SAMPLES) -> EvalReport:
        plan, places = plans[name], [folder] if isinstance(folder, Path) else folder
        data = DataConfig(heldout=[str(one) for one in places], max_bad_share=0.6)
        asking = Asking(3) if name == "vqa" else None
        split = HeldOut(data, plan.model, MlmConfig(), tokenizer, seed=0, num_pairs=num_pairs, asking=asking)
        scorer = (CaptionScorer if name == "caption" else VqaScorer)(plan, place, split)
        return scorer.run(passes)

    return report


def set_of(folder: Path, metadata: Any, **files: bytes) -> Path:
    """A set whose samples all hold that metadata, or what it makes of their numbers."""
    said = metadata if callable(metadata) else lambda number: metadata
    samples = {n: files_of(n) | {"json": json.dumps(said(n)).encode()} | files for n in range(NUM_SAMPLES)}
    return write_set(folder, NUM_SAMPLES, samples)


PEOPLE = {
    "empty captions": {"captions": ["", ""]},
    "one empty caption": {"captions": ["", "a cat"]},
    "a scene of words": {"scene": ["indoor", "kitchen"]},
    "a scene of numbers": {"scene": [1, 2]},
    "a scene of people": {"scene": [{"name": "a"}, {"name": "b"}]},
    "captions as a text": {"captions": "a cat"},
    "a twin of their own": {"twin": {"caption": None, "kind": 5}},
    "questions of their own": {"questions": "none"},
}


@pytest.mark.parametrize("name", PEOPLE)
def test_metadata_of_people_is_no_reference_and_no_scene(
    name: str, tmp_path: Path, report_of: Callable[..., EvalReport]
) -> None:
    # A caption that reads as one of a synthetic scene.
    files = {"txt": b"a small red star and a large blue ring"}
    report = report_of(set_of(tmp_path / "set", PEOPLE[name], **files))
    scores = report.scores["captions"]
    assert scores["num_images"] == NUM_SAMPLES and not any(score.endswith("_right") for score in scores)
    assert all(shown.is_right is None and shown.truth for shown in report.shown)
    assert [row["image_id"] for row in report.answers["captions"]] == [f"k{n:05d}" for n in range(NUM_SAMPLES)]


def test_scenes_of_ours_are_judged(tmp_path: Path, report_of: Callable[..., EvalReport]) -> None:
    scores = report_of(set_of(tmp_path / "set", {"scene": OURS})).scores["captions"]
    assert scores["caption_all_right"] == 0.0 and scores["constant_caption_all_right"] == 0.0


def test_a_null_reference_leaves_its_sample_out(tmp_path: Path, report_of: Callable[..., EvalReport]) -> None:
    folder = set_of(tmp_path / "set", lambda n: {"captions": [None, "a"] if n == 3 else ["a red", "a blue"]})
    report = report_of(folder)
    assert report.scores["captions"]["num_images"] == NUM_SAMPLES - 1
    assert "k00003" not in {row["image_id"] for row in report.answers["captions"]}


def test_a_broken_image_is_neither_captioned_nor_scored(tmp_path: Path, report_of: Callable[..., EvalReport]) -> None:
    folder = write_set(tmp_path / "set", NUM_SAMPLES, {2: files_of(2) | {"jpg": picture(2)[:150]}})
    report = report_of(folder)
    assert report.scores["captions"]["num_images"] == NUM_SAMPLES - 1
    assert len(report.answers["captions"]) == NUM_SAMPLES - 1


def test_captions_of_one_image_are_its_references(tmp_path: Path, report_of: Callable[..., EvalReport]) -> None:
    said = {n: {"coco_id": 40 + n // 4} for n in range(NUM_SAMPLES)}
    folder = set_of(tmp_path / "apart", said.get)
    for shard in folder.glob("*.tar"):  # as --apart writes them: the same image under several keys
        samples = {f"k{n}": files_of(n) | {"jpg": picture(n // 4), "json": json.dumps(said[n]).encode()} for n in said}
        write_tar(shard, samples)
    report = report_of(folder)
    assert report.scores["captions"]["num_images"] == 2
    assert report.scores["heldout"]["num_pairs"] == NUM_SAMPLES
    assert [row["image_id"] for row in report.answers["captions"]] == [40, 41]


def test_equal_keys_of_two_folders_are_told_apart(tmp_path: Path, report_of: Callable[..., EvalReport]) -> None:
    other = {f"k{n:05d}": files_of(n + 50) for n in range(4)}
    one = write_set(tmp_path / "one", 4)
    two = tmp_path / "two"
    two.mkdir()
    write_tar(two / "other.tar", other)
    rows = report_of([one, two]).answers["captions"]
    names = [row["image_id"] for row in rows]
    assert names == [*(f"set-000000/k{n:05d}" for n in range(4)), *(f"other/k{n:05d}" for n in range(4))]


def test_questions_of_two_shards_have_ids_of_their_own(tmp_path: Path, report_of: Callable[..., EvalReport]) -> None:
    said = json.dumps({"questions": [{"question": "a red?", "answer": "red"}, {"question": "a blue?"}]}).encode()
    for shard in ("s0", "s1"):
        write_tar(tmp_path / f"{shard}.tar", {"00000000": {"jpg": picture(int(shard[1])), "json": said}})
    report = report_of(tmp_path, "vqa")
    rows = report.answers["vqa"]
    assert [row["question_id"] for row in rows] == [f"s{n // 2}/00000000-{n % 2}" for n in range(4)]
    assert report.scores["vqa"]["num_questions"] == 2


def test_the_central_caption_of_blanks_is_one_of_them() -> None:
    assert most_central([["a cat", "\x1c"], ["a dog"]]) in {"a cat", "a dog"}
    assert most_central([["\x1c"]]) == "\x1c"


@pytest.mark.parametrize("scene", [["indoor", "kitchen"], [1, 2], [{"name": "a"}, {"name": "b"}], "indoor", None])
def test_captions_of_no_synthetic_scene_are_refused(scene: Any, tmp_path: Path, tokenizer: Tokenizer) -> None:
    from mmtrain.data.faults import DataError
    from mmtrain.deploy.captions import heldout_scores

    data = DataConfig(heldout=[str(set_of(tmp_path / "set", {"scene": scene}))])
    split = HeldOut(data, tiny_plan().model, MlmConfig(), tokenizer, seed=0, num_pairs=NUM_SAMPLES)
    with pytest.raises(DataError, match="holds no scene of two things"):
        heldout_scores(None, split, batch_size=4)
