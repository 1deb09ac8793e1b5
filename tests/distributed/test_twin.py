"""The twin says what the parallel model says, exported from whatever layout, and comes back bit for bit."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmtrain.config.shapes import padded_vocab_size
from tests.distributed.exported import TOWERS, TUNED, loaded_from_export, plan_of, run_and_save
from tests.helpers import VOCAB_SIZE, global_batch_of, run_ranks

pytestmark = pytest.mark.timeout(600)  # the first test waits for the runs of every layout
LAYOUTS = {"1": (1, 1), "tp2": (2, 1), "pp2": (1, 2), "tp2-pp2": (2, 2)}
Found = dict[str, np.ndarray]
Runs = dict[tuple[str, str], tuple[Path, list[Found]]]


PLAIN, *OTHERS = TOWERS
LORA, LARGER = TUNED
TUNED_ON = "tp2"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Of the plain towers by layout, and of what was tuned: a run folder with a checkpoint, and what was found."""
    tuned = [(towers, TUNED_ON) for towers in TUNED]
    return runs_of([*((PLAIN, layout) for layout in LAYOUTS), *tuned], tmp_path_factory)


@pytest.fixture(scope="module")
def other_runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The same of the other towers, cut along both axes."""
    return runs_of([(towers, "tp2-pp2") for towers in OTHERS], tmp_path_factory)


def runs_of(wanted: Sequence[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """By towers and layout; each of two micro-batches."""
    root = tmp_path_factory.mktemp("twin")
    tokenizer = _tokenizer(root)
    folders = {key: root / f"{number}" for number, key in enumerate(wanted)}
    for folder in folders.values():
        folder.mkdir()
        (folder / "tokenizer.model").write_bytes(tokenizer)
        (folder / "tokenizer.sha256").write_text(hashlib.sha256(tokenizer).hexdigest())
    found = {}
    for num_ranks in (1, 2, 4):
        keys = [key for key in wanted if np.prod(LAYOUTS[key[1]]) == num_ranks]
        if not keys:
            continue
        begins_with = {LARGER: PLAIN}
        jobs = [
            (towers, *LAYOUTS[name], str(folders[towers, name]), str(folders.get((begins_with.get(towers), name), "")))
            for towers, name in keys
        ]
        answers = run_ranks(num_ranks, run_all, jobs)
        for number, key in enumerate(keys):
            found[key] = folders[key], next(answer[number] for answer in answers if answer[number])
    return found


def run_all(jobs: list[tuple[str, int, int, str, str]]) -> list[Any]:
    """One start of processes for several runs."""
    return [run_and_save(*job) for job in jobs]


def _tokenizer(folder: Path) -> bytes:
    """A sentencepiece model whose vocabulary fills up to as many rows as that of the samples made by hand."""
    from data_tools.tokenizer import train_tokenizer

    captions = [f"a {word} {thing}" for word in ("red", "blue", "green") for thing in ("dog", "cat", "house", "tree")]
    num_pieces = train_tokenizer(captions, folder / "tokenizer.model", VOCAB_SIZE).num_pieces
    assert padded_vocab_size(num_pieces) == padded_vocab_size(VOCAB_SIZE)
    return (folder / "tokenizer.model").read_bytes()


def twin_of(folder: Path) -> Any:
    """The exported model with every head."""
    from mmtrain.deploy.export import export_run
    from mmtrain.hf.pretraining import VLBertForPreTraining

    if not (folder / "export").exists():  # of a test before this one
        export_run(folder, folder / "export", step=None, dtype=torch.float32)
    return VLBertForPreTraining.from_pretrained(folder / "export").eval()


@torch.no_grad()
def twin_found(twin: Any, batch: Any, pool_size: int) -> Found:
    """What the twin finds of a batch, named as the parallel model's."""
    from mmtrain.hf.pretraining import hard_negatives

    pixels = (batch.images_BCHW.float() - 127.5) / 127.5
    known = torch.arange(batch.text_ids_BT.shape[1]) < batch.text_lengths_B.clamp_min(1)[:, None]
    base, has = twin.vlbert, {"has_image": batch.has_image_B}
    true = base(batch.text_ids_BT, pixels, known, **has)
    found = {"image_BE": true.image_embeds, "text_BE": true.text_embeds, "temperature": base.contrast.temperature}
    found["match positive"] = twin.match(true.last_hidden_state[:, 0])
    similar = true.image_embeds @ true.text_embeds.t() / base.contrast.temperature
    drawn = [hard_negatives(_samples(batch), similar, place, pool_size) for place in range(len(pixels))]
    own = range(len(pixels))
    images = torch.tensor([place if image is None else image for place, (image, _) in zip(own, drawn, strict=True)])
    texts = torch.tensor([place if text is None else text for place, (_, text) in zip(own, drawn, strict=True)])
    other = base(batch.text_ids_BT, pixels[images], known, has_image=batch.has_image_B[images])
    found["match negative_image"] = twin.match(other.last_hidden_state[:, 0])
    other = base(batch.text_ids_BT[texts], pixels, known[texts], **has)
    found["match negative_text"] = twin.match(other.last_hidden_state[:, 0])
    masked = base(batch.masked_ids_BT, pixels, known, **has).last_hidden_state
    found["token masked"] = twin.token(masked)[batch.masked_labels_BT >= 0]
    causal = base(batch.text_ids_BT, pixels, known, is_causal=True, **has).last_hidden_state
    has_next = torch.arange(known.shape[1]) < (batch.text_lengths_B - 1)[:, None]
    found["token causal"] = twin.token(causal)[has_next]
    return {name: value.numpy() for name, value in found.items()}


def _samples(batch: Any) -> Any:
    from dataclasses import fields

    from mmtrain.hf.pretraining import Samples

    return Samples(**{field.name: getattr(batch, field.name) for field in fields(Samples)})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_twin_finds_what_the_parallel_model_finds(runs: Runs, layout: str) -> None:
    assert_same(runs, PLAIN, layout)


@pytest.mark.long
@pytest.mark.parametrize("towers", OTHERS)
def test_the_twin_finds_the_same_with_towers_of_other_shapes(other_runs: Runs, towers: str) -> None:
    assert_same(other_runs, towers, "tp2-pp2")


@pytest.mark.parametrize("tuned", TUNED)
def test_the_twin_finds_the_same_after_what_fine_tuning_can_do(runs: Runs, tuned: str) -> None:
    assert_same(runs, tuned, TUNED_ON, within=1e-5)


def test_lora_had_an_effect_before_it_was_merged(runs: Runs) -> None:
    (_, with_lora), (_, without) = runs[LORA, TUNED_ON], runs[PLAIN, TUNED_ON]
    assert np.abs(with_lora[0]["token causal"] - without[0]["token causal"]).max() > 0.1


def test_a_run_with_lora_is_no_beginning_for_one_without_but_its_export_is(runs: Runs) -> None:
    from mmtrain.checkpoint.beginning import RunSource
    from mmtrain.config.tuning import LoraConfig
    from mmtrain.hf.storage import WeightFolder

    folder, _ = runs[LORA, TUNED_ON]
    source, theirs = RunSource(folder), plan_of(LORA, 1, 1).finetune.lora
    assert source.lora_faults(theirs) == []
    for other in (LoraConfig(), theirs.model_copy(update={"alpha": 1.0})):
        (fault,) = source.lora_faults(other)
        assert "trained with finetune.lora.rank=3, alpha=12" in fault and f"mmtrain export {folder}" in fault
    twin_of(folder)
    assert not [name for name in WeightFolder(folder / "export") if "lora" in name]


def test_a_larger_grid_has_the_positions_that_torch_reads_off_between_those_of_the_smaller(runs: Runs) -> None:
    from mmtrain.hf.storage import WeightFolder

    grids = []
    for towers in (PLAIN, LARGER):
        folder, _ = runs[towers, TUNED_ON]
        twin_of(folder)
        grids.append(WeightFolder(folder / "export").read("vlbert.vision.embedding.positions"))
    small, large = grids
    square = small[1:].T.reshape(1, -1, 2, 2)
    wanted = torch.nn.functional.interpolate(square, size=(4, 4), mode="bicubic", align_corners=False)
    assert torch.equal(large[1:], wanted.flatten(2)[0].T)
    assert torch.equal(large[0], small[0])


def test_an_export_gives_the_same_positions_of_a_larger_grid_as_its_run(runs: Runs, place: Any) -> None:
    from mmtrain.engine.beginnings import POSITIONS, begin_from_source
    from mmtrain.engine.build import build_model

    folder, _ = runs[PLAIN, TUNED_ON]
    twin_of(folder)
    found = []
    for source in (folder, folder / "export"):
        plan = plan_of(LARGER, 1, 1, model={"image_size": 32, "init_from": source})
        model, slices = build_model(plan, place, VOCAB_SIZE)
        begin_from_source(plan, model, slices, says_so=False)
        found.append(dict(model.named_parameters())[POSITIONS])
    assert torch.equal(*found)


def assert_same(runs: Runs, towers: str, layout: str, within: float = 1e-4) -> None:
    folder, found = runs[towers, layout]
    twin = twin_of(folder)
    plan = plan_of(towers, *LAYOUTS[layout])
    batches = global_batch_of(0, plan, 1, 0)
    assert len(found) == len(batches) == 2
    for wanted, batch in zip(found, batches, strict=True):
        mine = twin_found(twin, batch, plan.itm.pool_size)
        assert mine.keys() == wanted.keys()
        for name, values in wanted.items():
            np.testing.assert_allclose(mine[name], values, rtol=within, atol=within, err_msg=name)
            assert values.std() > 1e-3 or values.size == 1, f"{name} hardly differs from place to place"


@pytest.mark.parametrize(
    "layout", ["pp2", *(pytest.param(name, marks=pytest.mark.long) for name in ("1", "tp2", "tp2-pp2"))]
)
def test_an_export_comes_back_bit_for_bit_into_another_layout(runs: Runs, layout: str) -> None:
    from mmtrain.hf.names import in_run
    from mmtrain.hf.storage import WeightFolder

    folder, _ = runs[PLAIN, layout]
    twin_of(folder)
    stored = WeightFolder(folder / "export")
    tp, pp = LAYOUTS["tp2-pp2" if layout == "1" else "1"]
    rectangles = [part for rank in run_ranks(tp * pp, loaded_from_export, str(folder), tp, pp) for part in rank]
    assert {name for name, _, _ in rectangles} == {in_run(name) for name in stored}
    from mmtrain.hf.names import in_twin

    for name, index, values in rectangles:
        assert np.array_equal(stored.read(in_twin(name), index).numpy(), values), name
