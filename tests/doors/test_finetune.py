"""A pretrained run becomes a captioner through the door, inherits what it must, and refuses what does not fit."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from mmtrain.config.load import load_config
from mmtrain.scores.caption import caption_scores
from tests.doors.conftest import Prepared
from tests.doors.launched import Ended, launch

SIZES = ["train.num_steps=3", "train.global_batch_size=16", "train.micro_batch_size=8", "train.warmup_steps=1"]
SIZES += ["eval.num_pairs=20", "precision=fp32", "itm.pool_size=4"]


@pytest.fixture(scope="module")
def pretrained(prepared: Prepared) -> Path:
    folder = prepared.folder / "to-finetune"
    ended = launch("preloaded", "pretrain", ["--config", prepared.config, f"run_dir={folder}", "train.num_steps=2"])
    assert ended.code == 0, ended.said
    return folder


def finetune(*words: object, launcher: str = "preloaded") -> Ended:
    return launch(launcher, "finetune", [*words, *SIZES])


def held_out_captions(prepared: Prepared) -> list[str]:
    """In the order of the shards."""
    found = []
    for shard in sorted((prepared.folder / "set" / "heldout").glob("*.tar")):
        with tarfile.open(shard) as tar:
            found += [tar.extractfile(name).read().decode() for name in tar.getnames() if name.endswith(".txt")]
    return found


def rows(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def captioner(pretrained: Path) -> tuple[Path, Ended]:
    folder = pretrained.with_name("captioner")
    words = ["--task", "caption", f"run_dir={folder}", f"model.init_from={pretrained}", "task.max_new_tokens=6"]
    return folder, finetune(*words)


def test_a_captioner_begins_with_a_run_and_inherits_its_shape_tokenizer_and_data(
    captioner: tuple[Path, Ended], pretrained: Path
) -> None:
    folder, ended = captioner
    assert ended.code == 0, ended.said
    assert f"first weights: from {pretrained}/checkpoints/step-00000002, after step 2" in ended.said
    steps = [row for row in rows(folder) if "eval" not in row]
    assert [row["step"] for row in steps] == [1, 2, 3]
    assert steps[0]["loss_lm"] == steps[0]["loss"] and steps[0]["loss_itc"] is None


def test_its_captions_are_scored_beside_a_constant_one_and_kept_as_the_servers_take_them(
    captioner: tuple[Path, Ended], prepared: Prepared
) -> None:
    folder, _ = captioner
    scores = next(row for row in rows(folder) if row.get("eval") == "captions")
    answers = json.loads((folder / "answers/captions.json").read_text())
    assert len(answers) == scores["num_images"] == 20
    assert all(set(answer) == {"image_id", "caption"} for answer in answers)
    references = [[caption] for caption in held_out_captions(prepared)[:20]]
    expected = caption_scores([answer["caption"] for answer in answers], references)
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    # The constant caption is one of the references, so it is right about something.
    assert scores["constant_rouge_l"] > 0 and scores["constant_bleu_1"] > 0
    assert 0 <= scores["caption_all_right"] <= scores["caption_things_right"] <= 1


@pytest.mark.long
def test_evaluate_scores_a_task_as_its_run_did(captioner: tuple[Path, Ended]) -> None:
    folder, _ = captioner
    before = next(row for row in rows(folder) if row.get("eval") == "captions")
    ended = launch("preloaded", "evaluate", [folder])
    assert ended.code == 0, ended.said
    assert [row for row in rows(folder) if row.get("eval") == "captions"][-1] == before


@pytest.mark.long
def test_retrieval_on_two_processes_says_what_re_ranking_cost(pretrained: Path) -> None:
    folder = pretrained.with_name("retriever")
    words = ["--task", "retrieval", f"run_dir={folder}", f"model.init_from={pretrained}", "task.shortlist=5"]
    ended = finetune(*words, launcher="torchrun")
    assert ended.code == 0, ended.said
    scores = next(row for row in rows(folder) if row.get("eval") == "reranked")
    assert scores["num_shortlisted"] == 5 and 100 <= scores["num_pairs_matched"] <= 200
    ended = launch("preloaded", "export", [folder])
    assert ended.code == 0, ended.said
    assert json.loads((folder / "export/config.json").read_text())["architectures"] == ["VLBertForImageTextRetrieval"]


def test_a_run_goes_on_exactly_also_when_what_it_began_with_is_gone(pretrained: Path, tmp_path: Path) -> None:
    """Small matrices beside weights of a run on smaller images, of which a checkpoint must hold everything."""
    source, whole, cut = tmp_path / "source", tmp_path / "whole", tmp_path / "cut"
    shutil.copytree(pretrained, source)
    words = ["--task", "retrieval", f"model.init_from={source}", "checkpoint.save_every=2", "model.image_size=48"]
    words += ["finetune.lora.rank=2", "finetune.lora.beside=heads"]
    ended = finetune(*words, f"run_dir={whole}")
    assert ended.code == 0, ended.said
    assert "positions of 6 x 6 patches: read off those of 4 x 4" in ended.said
    assert "parameters move: " in ended.said and "drawn anew" not in ended.said
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints/step-00000003")
    shutil.rmtree(source)
    ended = finetune(*words, f"run_dir={cut}")
    assert ended.code == 0, ended.said
    assert "going on after step 2" in ended.said
    for name in ("loss", "loss_itc", "loss_itm", "grad_norm"):
        assert [row[name] for row in rows(cut) if "loss" in row] == [row[name] for row in rows(whole) if "loss" in row]
    assert [row for row in rows(cut) if "eval" in row] == [row for row in rows(whole) if "eval" in row]


@pytest.mark.long
def test_a_run_on_larger_images_is_exported_and_fine_tuned_further(pretrained: Path, tmp_path: Path) -> None:
    larger, further = tmp_path / "larger", tmp_path / "further"
    words = ["--task", "caption", f"run_dir={larger}", f"model.init_from={pretrained}", "task.max_new_tokens=6"]
    ended = finetune(*words, "model.image_size=64", "finetune.lora.rank=2", launcher="torchrun")
    assert ended.code == 0, ended.said
    ended = finetune("--task", "caption", f"run_dir={further}", f"model.init_from={larger}", "task.max_new_tokens=6")
    assert ended.code == 2 and "or begin with its export, where they are merged" in ended.said
    ended = launch("preloaded", "export", [larger])
    assert ended.code == 0, ended.said
    assert json.loads((larger / "export/config.json").read_text())["image_size"] == 64
    words = ["--task", "caption", f"run_dir={further}", f"model.init_from={larger}/export", "task.max_new_tokens=6"]
    words += ["finetune.freeze=[vision,text]", "finetune.layer_decay=0.8"]
    ended = finetune(*words)
    assert ended.code == 2 and "data.train is not given" in ended.said  # an export says nothing of places
    places = load_config(larger / "config.yaml", []).data
    ended = finetune(*words, f"data.train={places.train[0]}", f"data.heldout={places.heldout[0]}")
    assert ended.code == 0, ended.said
    ended = launch("preloaded", "evaluate", [larger])
    assert ended.code == 0, ended.said


def test_what_does_not_fit_is_refused_at_once(pretrained: Path, tmp_path: Path) -> None:
    other = tmp_path / "tokenizer.model"
    shutil.copyfile(pretrained / "tokenizer.model", other)
    other.write_bytes(other.read_bytes() + b"\x12\x00")  # an empty field of a message that readers skip
    words = ["--task", "caption", f"run_dir={tmp_path}/run", f"model.init_from={pretrained}"]
    ended = finetune(*words, f"data.tokenizer={other}", "model.text_layers=2")
    assert ended.code == 2, ended.said
    assert "data.tokenizer is not that of model.init_from; set data.tokenizer=" in ended.said
    assert "model.text_layers is 2, but 1 in model.init_from" in ended.said
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_task_is_refused(tmp_path: Path) -> None:
    ended = finetune(f"run_dir={tmp_path}/run")
    assert ended.code == 2
    assert "no task is named; say --task caption | retrieval" in ended.said
