"""A pretrained run learns to answer questions through the door: written, ranked, or chosen from a list of answers."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.doors.conftest import Prepared
from tests.doors.launched import Ended, launch, run_program
from tests.doors.test_export import pictures

SIZES = ["train.num_steps=3", "train.global_batch_size=16", "train.micro_batch_size=8", "train.warmup_steps=1"]
SIZES += ["eval.num_pairs=30", "precision=fp32"]


def rows(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def scores_of(run_dir: Path) -> dict:
    return [row for row in rows(run_dir) if row.get("eval") == "vqa"][-1]


def finetune(source: Path, *words: object) -> Ended:
    return launch("preloaded", "finetune", ["--task", "vqa", f"model.init_from={source}", *SIZES, *words])


@pytest.fixture(scope="module")
def answers(prepared: Prepared) -> Path:
    file = prepared.folder / "answers.txt"
    words = ["answers", prepared.folder / "set/train", "--out", file, "--min-count", 2]
    ended = run_program([sys.executable, "-m", "data_tools", *words])
    assert ended.code == 0 and "right for" in ended.said, ended.said
    listed = file.read_text().splitlines()
    assert {"yes", "no", "two", "small", "top left"} <= set(listed) and f"{len(listed)} answers" in ended.said
    return file


@pytest.fixture(scope="module")
def chooser(exported: Path, answers: Path) -> Path:
    folder = exported.with_name("chooser")
    words = ["task.answering=choose", f"task.answers={answers}", "checkpoint.save_every=2", f"run_dir={folder}"]
    ended = finetune(exported, *words)
    assert ended.code == 0, ended.said
    assert "drawn anew, for that run has none: answer.logits.bias, answer.logits.weight" in ended.said
    return folder


@pytest.fixture(scope="module")
def writer(exported: Path) -> Path:
    folder = exported.with_name("writer")
    ended = finetune(exported, f"run_dir={folder}", "task.max_new_tokens=4")
    assert ended.code == 0, ended.said
    return folder


def test_written_answers_are_scored_beside_the_commonest_and_kept_as_the_server_takes_them(writer: Path) -> None:
    scores = scores_of(writer)
    assert scores["num_questions"] == 30 and 0 < scores["constant_vqa_accuracy"] < 0.5
    assert {"vqa_accuracy", "vqa_accuracy_relation", "constant_by_kind_vqa_accuracy"} <= scores.keys()
    assert all(row["loss"] == row["loss_lm"] for row in rows(writer) if "loss" in row)
    found = json.loads((writer / "answers/vqa.json").read_text())
    assert len(found) == 30 and all(set(row) == {"question_id", "answer"} for row in found)


@pytest.mark.long
def test_evaluate_scores_a_run_as_it_was_and_ranks_a_list_where_it_is_told_to(writer: Path, answers: Path) -> None:
    before = scores_of(writer)
    assert launch("preloaded", "evaluate", [writer]).code == 0
    assert scores_of(writer) == before
    ended = launch("preloaded", "evaluate", [writer, "task.answering=rank", f"task.answers={answers}"])
    assert ended.code == 0, ended.said
    listed = set(answers.read_text().splitlines())
    assert {row["answer"] for row in json.loads((writer / "answers/vqa.json").read_text())} <= listed


@pytest.mark.long
def test_a_run_that_chooses_goes_on_exactly_also_when_the_list_is_gone(
    chooser: Path, exported: Path, answers: Path, tmp_path: Path
) -> None:
    cut, lent = tmp_path / "cut", tmp_path / "answers.txt"
    shutil.copytree(chooser, cut)
    shutil.rmtree(cut / "checkpoints/step-00000003")
    shutil.copy(answers, lent)
    words = ["task.answering=choose", f"task.answers={lent}", "checkpoint.save_every=2", f"run_dir={cut}"]
    ended = finetune(exported, *words)
    assert ended.code == 0 and "going on after step 2" in ended.said, ended.said
    for name in ("loss", "loss_answer", "grad_norm"):
        assert [row.get(name) for row in rows(cut)] == [row.get(name) for row in rows(chooser)]
    assert scores_of(cut) == scores_of(chooser)
    lent.write_text("yes\nno\n")
    ended = finetune(exported, *words)
    assert ended.code == 2 and "task.answers: " in ended.said and " -> ['yes', 'no']" in ended.said, ended.said


def test_what_chooses_exports_to_the_twin_that_answers_with_its_list(chooser: Path, answers: Path) -> None:
    from PIL import Image

    from mmtrain.hf import VLBertForVisualQuestionAnswering

    ended = launch("preloaded", "export", [chooser])
    assert ended.code == 0, ended.said
    config = json.loads((chooser / "export/config.json").read_text())
    assert config["architectures"] == ["VLBertForVisualQuestionAnswering"]
    assert config["answers"] == answers.read_text().splitlines()
    twin = VLBertForVisualQuestionAnswering.from_pretrained(chooser / "export")
    picture = Image.new("RGB", (40, 40), "red")
    said = twin.answer([picture, picture], ["what color is the ring?", "how many objects are there?"])
    assert set(said) <= set(config["answers"])


def test_a_question_about_a_folder_is_answered_picture_by_picture(writer: Path, tmp_path: Path) -> None:
    from mmtrain.hf import VLBertForVisualQuestionAnswering

    seen, question = pictures(3), "what color is the ring?"
    for number, picture in enumerate(seen):
        picture.save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    export = launch("preloaded", "export", [writer])
    assert export.code == 0, export.said
    words = [tmp_path, "--ask", question, "--batch-size", 2, "--beams", 2, "--jsonl", tmp_path / "answers.jsonl"]
    ended = launch("preloaded", "generate", [writer / "export", *words])
    assert ended.code == 1 and "broken.jpg passed over: " in ended.said, ended.said
    found = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    twin = VLBertForVisualQuestionAnswering.from_pretrained(writer / "export")
    assert [row["answer"] for row in found if "answer" in row] == twin.answer(seen, question, num_beams=2)
    assert [Path(row["image"]).name for row in found if "error" in row] == ["broken.jpg"]


@pytest.mark.long
def test_a_list_that_does_not_match_is_refused_in_one_sentence(chooser: Path, exported: Path, tmp_path: Path) -> None:
    run, other = f"run_dir={tmp_path}/run", tmp_path / "other.txt"
    other.write_text("violet\nmauve\n")
    ended = finetune(exported, run, "task.answering=choose", f"task.answers={other}")
    assert ended.code == 2 and "task.answers lists 2 answers ('violet' is the first), and none of them" in ended.said
    ended = finetune(chooser, run, "task.answering=choose", f"task.answers={other}")
    assert ended.code == 2 and "task.answers are 2 answers, and not the" in ended.said, ended.said
    ended = finetune(exported, run, "task.answering=rank")
    assert ended.code == 2 and "task.answering is rank, but task.answers is not given" in ended.said, ended.said
    assert not (tmp_path / "run").exists()
