"""A checkpoint of a run as a Hugging Face folder: weights, config, processor, and a card that says what it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from mmtrain.checkpoint.folders import folder_of
from mmtrain.checkpoint.load import Found, checked, find_or_refuse, load_tensors
from mmtrain.checkpoint.manifest import Manifest
from mmtrain.config.load import dump_config
from mmtrain.config.places import without_places
from mmtrain.config.presets import PRESETS
from mmtrain.config.schema import RunConfig
from mmtrain.config.shapes import padded_vocab_size
from mmtrain.config.tuning import LoraConfig, low_rank_of
from mmtrain.data.folder_tokenizer import AnyTokenizer, tokenizer_at
from mmtrain.deploy.card import model_card
from mmtrain.deploy.output import check_export_output, new_export
from mmtrain.hf import (
    VLBertConfig,
    VLBertForImageCaptioning,
    VLBertForImageTextRetrieval,
    VLBertForVisualQuestionAnswering,
)
from mmtrain.hf.generating import generation_config_of
from mmtrain.hf.names import in_run, shapes
from mmtrain.hf.processing import processor_of
from mmtrain.hf.storage import write_weights
from mmtrain.monitor.log import LINES, read_rows
from mmtrain.parallel.slices import Slice

TOKENIZER = "tokenizer.model"
HELD_BYTES = 64 * 2**20  # of weights between the checkpoint and the file; a larger one is alone


# By task.name: the class that an export says it is for; the others load from it too.
MADE_FOR = {"retrieval": VLBertForImageTextRetrieval, "vqa": VLBertForVisualQuestionAnswering}


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    step: int  # optimizer steps behind the weights
    num_parameters: int
    num_bytes: int  # of the weights


def export_run(run_dir: Path, out: Path, *, step: int | None, dtype: torch.dtype, overwrite: bool = False) -> Exported:
    """Write the twin of the checkpoint of `step`, by default the newest, whatever layout made it.

    The folder is there whole or not at all; one that is there is replaced only with `overwrite`, and only an export.
    CheckpointError where there is no such checkpoint, StorageError where `out` cannot be written.
    """
    check_export_output(run_dir, out, overwrite=overwrite)
    checkpoints = run_dir / "checkpoints"
    source, manifest = find_or_refuse(checkpoints) if step is None else _at(folder_of(checkpoints, step))
    tokenizer = tokenizer_at(run_dir / TOKENIZER)
    manifest.refuse_other_tokenizer(tokenizer.sha256)
    plan = manifest.plan()
    config = twin_config(plan, tokenizer, dtype)
    with new_export(out, overwrite=overwrite) as folder:
        wanted = shapes(config)
        num_bytes = write_weights(folder, wanted, dtype, _Weights(source, wanted, plan.finetune.lora))
        config.save_pretrained(folder)
        processor = processor_of(run_dir / TOKENIZER, config)
        generation_config_of(config, processor.tokenizer.all_special_ids).save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "training.yaml").write_text(dump_config(without_places(plan)))
        num_parameters = num_bytes // dtype.itemsize
        card = model_card(plan, out, manifest.step, num_parameters, scores_of(run_dir, manifest))
        (folder / "README.md").write_text(card)
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
        caption_prompt=plan.task.prompt,
        answer_tokens=_answer_tokens(plan),
        answers=list(plan.task.answers) if plan.task.answering == "choose" else None,
        architectures=[MADE_FOR.get(plan.task.name, VLBertForImageCaptioning).__name__],
        dtype=str(dtype).removeprefix("torch."),
    )


def _answer_tokens(plan: RunConfig) -> int:
    """What a question leaves for its answer: as the run did, or as a run that answers would."""
    asks = plan.task.name == "vqa" and plan.task.max_new_tokens
    room = plan.task.max_new_tokens if asks else PRESETS["vqa"]["task"]["max_new_tokens"]
    return min(room, plan.model.max_text_length - 1)


def scores_of(run_dir: Path, manifest: Manifest) -> dict[str, dict[str, float]]:
    """The scores that the run's log holds of this step, by the evaluation's name; the last of each."""
    rows = read_rows(run_dir) if (run_dir / LINES).exists() else []
    return {
        row["eval"]: {name: value for name, value in row.items() if name not in ("eval", "step")}
        for row in rows
        if row.get("step") == manifest.step and "eval" in row
    }


class _Weights:
    """The weights of a checkpoint, asked for in order: a few at a time are read and held, LoRA's merged into them."""

    def __init__(self, source: Path, shapes: Mapping[str, tuple[int, ...]], lora: LoraConfig) -> None:
        self._source, self._shapes, self._lora = source, shapes, lora
        self._held: dict[str, torch.Tensor] = {}

    def __call__(self, name: str) -> torch.Tensor:
        """The weight that the twin calls so; it is let go."""
        if name not in self._held:
            self._held = self._read(name)
        return self._held.pop(name)

    def _read(self, first: str) -> dict[str, torch.Tensor]:
        """`first` and what follows it up to HELD_BYTES: every read looks through the table of all tensors."""
        names = list(self._shapes)
        found, num_bytes = {}, 0
        for name in names[names.index(first) :]:
            num_bytes += prod(self._shapes[name]) * torch.float32.itemsize
            if found and num_bytes > HELD_BYTES:
                break
            found[name] = torch.empty(self._shapes[name])
        small = {in_run(name): self._small_ones(part) for name, part in found.items() if self._has_small_ones(name)}
        named = {in_run(name): part for name, part in found.items()}
        for name, pair in small.items():
            named |= dict(zip(low_rank_of(name), pair, strict=True))
        load_tensors(
            self._source, {Slice.of_part(name, tuple(part.shape), None, 0, 1): part for name, part in named.items()}
        )
        for name, (first, second) in small.items():
            named[name].add_(second @ first, alpha=self._lora.scale)
        return found

    def _has_small_ones(self, name: str) -> bool:
        return self._lora.stands_beside(in_run(name))

    def _small_ones(self, whole: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Room for LoRA's A and B beside a matrix."""
        num_outputs, num_inputs = whole.shape
        return torch.empty(self._lora.rank, num_inputs), torch.empty(num_outputs, self._lora.rank)
