"""A checkpoint of a run as a Hugging Face folder: weights, config, processor, and a card that says what it is."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from mmtrain.checkpoint.folders import folder_of
from mmtrain.checkpoint.load import Found, checked, find_or_refuse, load_tensors
from mmtrain.checkpoint.manifest import Manifest
from mmtrain.config.load import dump_config
from mmtrain.config.schema import RunConfig
from mmtrain.config.shapes import padded_vocab_size
from mmtrain.data.folder_tokenizer import AnyTokenizer, tokenizer_at
from mmtrain.deploy.card import model_card
from mmtrain.hf import VLBertConfig, VLBertForImageCaptioning
from mmtrain.hf.generating import generation_config_of
from mmtrain.hf.names import in_run, shapes
from mmtrain.hf.processing import processor_of
from mmtrain.hf.storage import write_weights
from mmtrain.parallel.slices import Slice

TOKENIZER = "tokenizer.model"
PARTIAL = ".partial"


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    step: int  # optimizer steps behind the weights
    num_parameters: int
    num_bytes: int  # of the weights


def export_run(run_dir: Path, out: Path, *, step: int | None, dtype: torch.dtype) -> Exported:
    """Write the twin of the checkpoint of `step`, by default the newest, whatever layout made it.

    The folder is there whole or not at all. CheckpointError where there is no such checkpoint.
    """
    checkpoints = run_dir / "checkpoints"
    source, manifest = find_or_refuse(checkpoints) if step is None else _at(folder_of(checkpoints, step))
    tokenizer = tokenizer_at(run_dir / TOKENIZER)
    manifest.refuse_other_tokenizer(tokenizer.sha256)
    plan = RunConfig.model_validate(manifest.config)
    config = twin_config(plan, tokenizer, dtype)
    partial = out.with_name(out.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    wanted = shapes(config)
    num_bytes = write_weights(partial, wanted, dtype, lambda name: _weight(source, in_run(name), wanted[name]))
    config.save_pretrained(partial)
    processor = processor_of(run_dir / TOKENIZER, config)
    generation_config_of(config, processor.tokenizer.all_special_ids).save_pretrained(partial)
    processor.save_pretrained(partial)
    (partial / "training.yaml").write_text(dump_config(plan))
    num_parameters = num_bytes // dtype.itemsize
    card = model_card(plan, out, manifest.step, num_parameters, scores_of(run_dir, manifest))
    (partial / "README.md").write_text(card)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return Exported(out, manifest.step, num_parameters, num_bytes)


def _at(folder: Path) -> Found:
    return Found(folder, checked(folder))


def twin_config(plan: RunConfig, tokenizer: AnyTokenizer, dtype: torch.dtype) -> VLBertConfig:
    """The twin's config of a run."""
    return VLBertConfig.of(
        plan.model,
        plan.itc,
        vocab_size=padded_vocab_size(tokenizer.num_pieces),
        num_pieces=tokenizer.num_pieces,
        pad_token_id=tokenizer.pad_id,
        unk_token_id=tokenizer.unk_id,
        bos_token_id=tokenizer.cls_id,
        eos_token_id=tokenizer.sep_id,
        mask_token_id=tokenizer.mask_id,
        architectures=[VLBertForImageCaptioning.__name__],
        dtype=str(dtype).removeprefix("torch."),
    )


def scores_of(run_dir: Path, manifest: Manifest) -> dict[str, dict[str, float]]:
    """The scores that the run's log holds of this step, by the evaluation's name; the last of each."""
    log = run_dir / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return {
        row["eval"]: {name: value for name, value in row.items() if name not in ("eval", "step")}
        for row in rows
        if row.get("step") == manifest.step and "eval" in row
    }


def _weight(source: Path, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    whole = Slice(name, shape, (0,) * len(shape), shape)
    tensor = torch.empty(shape)
    load_tensors(source, {whole: tensor})
    return tensor
