"""Finetune: a pretrained run or export in, a run of one task out; the loop of pretraining, and all that it can.

deepspeed mmtrain/finetune.py --task caption model.init_from=runs/demo run_dir=runs/captions key=value ...
torchrun --nproc-per-node 4 -m mmtrain.finetune --config configs/finetune/retrieval.yaml ...
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtrain.config.load import ConfigError, load_config, read_config
from mmtrain.config.presets import PRESETS
from mmtrain.parallel.launch import Launch
from mmtrain.parallel.signals import Signals
from mmtrain.training import add_words, allowed_changes, begin, train_as_told

INHERITED = ("train", "heldout")  # places of data, where the run names no others


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0; 2 with one clear message when the run cannot start or go on as asked; 75, saved on a signal."""
    return begin(_parser().parse_args(argv), finetune)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mmtrain finetune", description="Train a pretrained model for one task.")
    parser.add_argument("--task", choices=sorted(PRESETS), help="what to learn: the same as task.name=...")
    return add_words(parser)


def finetune(words: argparse.Namespace, launch: Launch, signals: Signals) -> int:
    """Lay the shape, tokenizer and data of what the run begins with under its own config, and train."""
    overrides = [*([f"task.name={words.task}"] if words.task else []), *words.overrides]
    plan, _ = read_config(words.config, overrides)  # what is wrong with it is said with all the rest
    if plan.task.name not in PRESETS:
        raise ConfigError([f"no task is named; say --task {' | '.join(sorted(PRESETS))}, or task.name in the config"])
    # A run goes on also when what it began with is gone: its own folder says the same by then.
    sources = [folder for folder in (plan.model.init_from, plan.run_dir) if folder and _written_config(folder)]
    under = _inherited(sources[0]) if plan.model.init_from and sources else {}
    return train_as_told(words.config, overrides, allowed_changes(words), launch, signals, under=under)


def _inherited(source: Path) -> dict[str, Any]:
    """Of a run or an export: the sections that a run which begins with it need not repeat."""
    written = _written_config(source)
    assert written is not None, f"{source} says nothing of how it was trained"
    theirs = load_config(written, ()).model_dump(mode="json")
    model = {name: value for name, value in theirs["model"].items() if name not in ("init_from", "init_towers")}
    data = {name: theirs["data"][name] for name in INHERITED} | {"tokenizer": str(source / "tokenizer.model")}
    return {"model": model, "data": data}


def _written_config(folder: Path) -> Path | None:
    """The config of a run or of an export; other folders have none."""
    return next((path for name in ("config.yaml", "training.yaml") if (path := folder / name).exists()), None)


if __name__ == "__main__":
    sys.exit(main())
