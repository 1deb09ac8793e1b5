"""Runs that cannot start, or cannot go on: one sentence that names the knob, an end in time, no traceback."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mmtrain.config.schema import DataConfig, MlmConfig, TrainConfig
from mmtrain.data.stream import Stream
from tests.doors.conftest import Prepared
from tests.doors.launched import LAUNCHERS, Ended, launch
from tests.unit.data.made import MODEL, caption_of, files_of, train_tokenizer, write_set

LIMIT_SECONDS = 60  # an answer and no hang; on two idle cores it comes within 15 under every launcher
EXIT_CODES = {"python": 2, "deepspeed": 2, "torchrun": 1}  # torchrun has no other code for a rank that ended itself
NUM_SAMPLES = 64


def an_unknown_knob(prepared: Prepared, folder: Path) -> tuple[list[str], str]:
    return ["model.vision_layer=3"], "model.vision_layer is unknown; did you mean model.vision_layers?"


def heads_that_do_not_divide(prepared: Prepared, folder: Path) -> tuple[list[str], str]:
    return ["parallel.tp=2", "model.num_heads=1"], "model.num_heads (1) is not divisible by parallel.tp (2)"


def an_empty_folder(prepared: Prepared, folder: Path) -> tuple[list[str], str]:
    (folder / "empty").mkdir()
    return [f"data.train={folder}/empty"], "data.train is "


def a_tokenizer_of_other_texts(prepared: Prepared, folder: Path) -> tuple[list[str], str]:
    other = train_tokenizer(folder / "other.model", ["0123456789 " * 3, "9876543210"] * 20)
    return [f"data.tokenizer={other}"], "data.tokenizer does not know"


def a_run_dir_of_another_model(prepared: Prepared, folder: Path) -> tuple[list[str], str]:
    (folder / "run").mkdir()
    other = prepared.config.read_text().replace("hidden_size: 32", "hidden_size: 64")
    (folder / "run" / "config.yaml").write_text(other)
    return [], f"{folder}/run holds a run that meant something else (was -> is):\n      model.hidden_size: 64 -> 32"


FAULTS = (
    an_unknown_knob,
    heads_that_do_not_divide,
    an_empty_folder,
    a_tokenizer_of_other_texts,
    a_run_dir_of_another_model,
)


# What one process refuses before it meets others, launchers add nothing to: one early and one late fault tell.
QUICK = (an_unknown_knob, a_run_dir_of_another_model)
CASES = [
    pytest.param(
        fault,
        launcher,
        id=f"{fault.__name__}-{launcher}",
        marks=() if launcher == "python" or fault in QUICK else pytest.mark.long,
    )
    for fault in FAULTS
    for launcher in LAUNCHERS
]


def assert_one_sentence(ended: Ended, launcher: str, sentence: str) -> None:
    assert ended.code == EXIT_CODES[launcher], ended.said
    assert ended.said.count(sentence) == 1 and ended.said.count("mmtrain: ") == 1, ended.said
    before, after = ended.said.split("mmtrain: ", 1)
    assert "Traceback" not in before, ended.said
    # torchrun adds a report with a traceback of its own; there is none of ours in it.
    assert launcher == "torchrun" or "Traceback" not in after, ended.said
    assert not re.search(r'File ".*/(mmtrain|data_tools)/', ended.said), ended.said


@pytest.mark.parametrize(("fault", "launcher"), CASES)
def test_bad_input_is_one_sentence_in_time_that_names_the_knob(
    fault: Callable[[Prepared, Path], tuple[list[str], str]], launcher: str, prepared: Prepared, tmp_path: Path
) -> None:
    words, sentence = fault(prepared, tmp_path)
    given = ["--config", prepared.config, f"run_dir={tmp_path}/run", *words]
    ended = launch(launcher, "pretrain", given)
    assert_one_sentence(ended, launcher, sentence)
    assert ended.seconds < LIMIT_SECONDS, f"{ended.seconds:.1f} s"


def numbers_of_rank_1(folder: Path, tokenizer: Path) -> list[int]:
    """What the second of two data-parallel ranks reads in the first epoch, by the number in the caption."""
    stream = Stream(
        DataConfig(train=str(folder), tokenizer=tokenizer, num_workers=0),
        MODEL,
        TrainConfig(global_batch_size=16, micro_batch_size=8),
        MlmConfig(),
        seed=0,
        dp=2,
        dp_rank=1,
    )
    batches = [batch for _ in range(NUM_SAMPLES // 16) for batch in stream.take(1)]
    captions = {stream.tokenizer.decode(ids) for batch in batches for ids in batch.text_ids_BT.tolist()}
    return [number for number in range(NUM_SAMPLES) if caption_of(number) in captions]


@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_too_many_bad_samples_on_one_rank_amid_a_run_end_every_rank(
    launcher: str, prepared: Prepared, tmp_path: Path
) -> None:
    captions = [caption_of(number) for number in range(NUM_SAMPLES)]
    tokenizer = train_tokenizer(tmp_path / "tokenizer.model", captions)
    read = numbers_of_rank_1(write_set(tmp_path / "good", NUM_SAMPLES), tokenizer)
    assert len(read) == NUM_SAMPLES // 2
    broken = {number: {**files_of(number), "jpg": b"no image"} for number in read[:8]}
    write_set(tmp_path / "broken", NUM_SAMPLES, broken)
    words = [f"run_dir={tmp_path}/run", f"data.train={tmp_path}/broken", f"data.tokenizer={tokenizer}"]
    words += ["train.num_steps=50", "data.heldout=[]", "eval.every=0"]
    ended = launch(launcher, "pretrain", ["--config", prepared.config, *words], limit_seconds=90)
    assert '"step": 3' in (tmp_path / "run" / "log.jsonl").read_text()  # it was in the middle
    assert_one_sentence(ended, launcher, "mmtrain: 8 of 32 samples of data.train could not be used")
    assert "data.max_bad_share" in ended.said
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed" and "8 of 32 samples of data.train" in status["reason"], status
