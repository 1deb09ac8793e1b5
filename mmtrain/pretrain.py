"""Pretrain: shards in, a run folder out; in a folder that holds a checkpoint the run goes on from it.

deepspeed mmtrain/pretrain.py --config configs/pretrain/tiny.yaml key=value ...
torchrun --nproc-per-node 4 -m mmtrain.pretrain --config ...   the same program under the other launcher
python mmtrain/pretrain.py --config ...                        one process
"""

import argparse
import sys
from collections.abc import Sequence

from mmtrain.io.arguments import Parser
from mmtrain.parallel.launch import Launch
from mmtrain.parallel.signals import Signals
from mmtrain.training import add_words, allowed_changes, begin, train_as_told


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0; 2 with one clear message when the run cannot start or go on as asked; 75, saved on a signal."""
    parser = Parser(prog="mmtrain pretrain", description="Pretrain on image-caption shards.")
    return begin(add_words(parser), argv, pretrain)


def pretrain(words: argparse.Namespace, launch: Launch, signals: Signals) -> int:
    """Train by the config alone: nothing lies below it."""
    return train_as_told(words.config, words.overrides, allowed_changes(words), launch, signals)


if __name__ == "__main__":
    sys.exit(main())
