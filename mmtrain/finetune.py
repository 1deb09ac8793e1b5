"""Finetune: a pretrained run or export in, a run of one task out; the loop of pretraining, and all that it can.

deepspeed mmtrain/finetune.py --task caption model.init_from=runs/demo run_dir=runs/captions key=value ...
torchrun --nproc-per-node 4 -m mmtrain.finetune --config configs/finetune/retrieval.yaml ...
"""

import argparse
import sys
from collections.abc import Sequence

from mmtrain.config.inherited import laid_under
from mmtrain.config.load import ConfigError, read_config
from mmtrain.config.presets import PRESETS
from mmtrain.io.arguments import Parser
from mmtrain.parallel.launch import Launch
from mmtrain.parallel.signals import Signals
from mmtrain.training import add_words, allowed_changes, begin, train_as_told


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0; 2 with one clear message when the run cannot start or go on as asked; 75, saved on a signal."""
    return begin(_parser(), argv, finetune)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="mmtrain finetune", description="Train a pretrained model for one task.")
    parser.add_argument("--task", choices=sorted(PRESETS), help="what to learn: the same as task.name=...")
    parser.add_argument(
        "--from-random",
        action="store_true",
        help="take shape, tokenizer and data of model.init_from and none of its weights: what is pretraining worth?",
    )
    return add_words(parser)


def finetune(words: argparse.Namespace, launch: Launch, signals: Signals) -> int:
    """Lay the shape, tokenizer and data of what the run begins with under its own config, and train."""
    overrides = [*([f"task.name={words.task}"] if words.task else []), *words.overrides]
    plan, _ = read_config(words.config, overrides)  # what is wrong with it is said with all the rest
    if plan.task.name not in PRESETS:
        raise ConfigError([f"no task is named; say --task {' | '.join(sorted(PRESETS))}, or task.name in the config"])
    under = laid_under(plan)
    if words.from_random:
        overrides.append("model.init_from=")
    return train_as_told(words.config, overrides, allowed_changes(words), launch, signals, under=under)


if __name__ == "__main__":
    sys.exit(main())
