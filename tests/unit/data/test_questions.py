"""Questions in KEY.json: read, laid out as texts with room for the answer, matched with a list, drawn each epoch."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtrain.config.schema import DataConfig, MlmConfig, TaskConfig
from mmtrain.data.faults import DataError
from mmtrain.data.heldout import HeldOut
from mmtrain.data.question_schema import Question, parse_questions
from mmtrain.data.questions import MAX_TARGETS, Asking
from mmtrain.data.table import SampleError
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.records import IGNORED_LABEL
from tests.unit.data.made import MODEL, files_of, open_stream, write_set

TEN = ["red"] * 4 + ["a red"] * 2 + ["green"] * 3 + ["blue"]


def question_of(number: int, which: int) -> dict:
    return {"question": f"a picture of {'red ' * (number % 3)}white", "answers": ["red", "green"][which:], "kind": "x"}


@pytest.fixture(scope="module")
def asked_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 samples, each with two questions; sample 5 has none, sample 6 one that nobody answered, 7 has no image."""
    spoilt = {}
    for number in range(40):
        files = files_of(number) | {
            "json": json.dumps({"questions": [question_of(number, i) for i in (0, 1)]}).encode()
        }
        spoilt[number] = files
    spoilt[5]["json"] = b"{}"
    spoilt[6]["json"] = json.dumps({"questions": [{"question": "a picture of red", "question_id": 77}]}).encode()
    del spoilt[7]["jpg"], spoilt[7]["txt"]
    return write_set(tmp_path_factory.mktemp("asked") / "set", 40, spoilt)


@pytest.fixture
def tokenizer(tokenizer_path: Path) -> Iterator[Tokenizer]:
    yield Tokenizer(tokenizer_path)


def heldout_of(folder: Path, tokenizer: Tokenizer, asking: Asking, num_pairs: int = 100) -> HeldOut:
    data = DataConfig(heldout=[str(folder)], max_bad_share=1.0)
    return HeldOut(data, MODEL, MlmConfig(), tokenizer, seed=0, num_pairs=num_pairs, asking=asking)


def test_questions_are_read_with_every_answer_and_their_number() -> None:
    said = {"questions": [{"question": " what? ", "answers": ["a", " b ", ""], "question_id": 7, "kind": "other"}]}
    assert parse_questions(said) == (Question("what?", ("a", "b"), 7, "other"),)
    assert parse_questions({"questions": [{"question": "why?", "answer": "so"}]})[0].answers == ("so",)
    assert parse_questions({"questions": [{"question": "why?"}]})[0].answers == ()
    assert parse_questions({}) == ()
    for bad in ({"questions": "why?"}, {"questions": [{"answer": "so"}]}, {"questions": ["why?"]}):
        with pytest.raises(SampleError, match="question"):
            parse_questions(bad)


def test_a_question_is_cut_as_if_its_answer_took_all_its_room(tokenizer: Tokenizer) -> None:
    asking, long = Asking(room=4), "red " * 30
    ids_T, prompt_length = asking.tokens(long, "green", tokenizer, 12)
    assert prompt_length == 8 and ids_T[0] == tokenizer.cls_id
    assert ids_T[7] == ids_T[-1] == tokenizer.sep_id
    assert tokenizer.decode(ids_T[8:].tolist()) == "green"
    cut, _ = asking.tokens("white", "green red " * 9, tokenizer, 12)
    asked, _ = asking.tokens("white", None, tokenizer, 12)
    assert len(cut) == len(asked) + 4 and cut[-1] == tokenizer.sep_id


def test_targets_are_the_official_accuracy_of_each_listed_answer() -> None:
    asking = Asking(0, ("blue", "green", "red", "pink"))
    assert dict(asking.targets(TEN)) == pytest.approx({2: 1.0, 1: 0.9, 0: 0.3})
    assert asking.targets(["pink"]) == ((3, 1.0),)
    assert asking.targets(["violet"]) == ()
    many = [str(number) for number in range(2 * MAX_TARGETS)]
    assert len(Asking(0, tuple(many)).targets(many)) == MAX_TARGETS


def test_a_task_asks_as_it_answers() -> None:
    assert Asking.of(TaskConfig()) is None
    assert Asking.of(TaskConfig(name="vqa", max_new_tokens=5)) == Asking(5)
    chooses = TaskConfig(name="vqa", answering="choose", answers=("a", "b"), max_new_tokens=5)
    assert Asking.of(chooses) == Asking(0, ("a", "b"))


def test_each_epoch_asks_anew_and_the_answer_stands_behind_the_question(
    asked_set: Path, tokenizer_path: Path, tokenizer: Tokenizer
) -> None:
    stream = open_stream(asked_set, tokenizer_path, asking=Asking(4), max_bad_share=0.1)
    said: dict[int, set[str]] = {}
    for _ in range(30):
        for batch in stream.take(stream.num_micro_batches):
            for row in np.flatnonzero(batch.has_text_B.numpy()):
                ids, length = batch.text_ids_BT[row].tolist(), int(batch.prompt_lengths_B[row])
                assert ids[length - 1] == tokenizer.sep_id
                said.setdefault(int(batch.image_ids_B[row]), set()).add(tokenizer.decode(ids[length:]))
    assert len(said) == 37  # two have no answered question, and one no image
    assert all(answers <= {"red", "green"} for answers in said.values())
    assert sum(len(answers) > 1 for answers in said.values()) > 30
    assert stream.num_bad > 0


def test_questions_are_masked_as_captions_are(asked_set: Path, tokenizer_path: Path) -> None:
    stream = open_stream(asked_set, tokenizer_path, asking=Asking(4), max_bad_share=0.1)
    for batch in stream.take(stream.num_micro_batches):
        is_masked_BT = batch.masked_labels_BT != IGNORED_LABEL
        assert torch.equal(is_masked_BT.any(dim=1), batch.has_text_B)
        assert torch.equal(batch.masked_labels_BT[is_masked_BT], batch.text_ids_BT[is_masked_BT])


def test_the_held_out_split_holds_every_question_in_order(asked_set: Path, tokenizer: Tokenizer) -> None:
    heldout = heldout_of(asked_set, tokenizer, Asking(4))
    assert len(heldout) == len(heldout.questions) == 38 * 2 + 1
    assert [heldout.question_name(number) for number in (0, 1, 2, 10)] == ["k00000-0", "k00000-1", "k00001-0", 77]
    (batch,) = heldout.batches(80)
    assert batch.has_text_B[:10].all() and not batch.has_text_B[77:].any()
    unanswered, without_image = 10, 11
    assert batch.text_lengths_B[unanswered] == batch.prompt_lengths_B[unanswered]
    assert not batch.has_text_B[without_image]
    assert len(heldout_of(asked_set, tokenizer, Asking(4), num_pairs=3)) == 3


def test_a_set_without_questions_or_with_other_answers_is_refused(asked_set: Path, tokenizer_path: Path) -> None:
    with pytest.raises(DataError, match="none of them answers any of the first 76 questions"):
        open_stream(asked_set, tokenizer_path, asking=Asking(0, ("yes", "no")))
    plain = write_set(asked_set.parent / "plain", 8)
    with pytest.raises(DataError, match='data.train has no answered "questions"'):
        open_stream(plain, tokenizer_path, asking=Asking(4))
    with pytest.raises(DataError, match="data.heldout holds no questions"):
        heldout_of(plain, Tokenizer(tokenizer_path), Asking(4))
