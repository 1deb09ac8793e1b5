"""The commands of `mmdata`: for each its arguments, and what it says when it is done."""

import argparse
import time
from pathlib import Path

from rich.console import Console

from data_tools.parallel import default_processes
from data_tools.scenes import SceneRules
from data_tools.synthetic import SynthSettings, synthesize
from data_tools.tokenizer import read_captions, train_tokenizer
from mmtrain.data.index import DataError, find_shards


def whole(text: str) -> int:
    """A whole number of at least 1."""
    return _at_least(1, text)


def natural(text: str) -> int:
    """A whole number of at least 0."""
    return _at_least(0, text)


def synth_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata synth`."""
    parser.add_argument("out", type=Path, help="folder that gets train/ and heldout/")
    parser.add_argument("--num-train", type=natural, default=20_000, help="training samples (%(default)s)")
    parser.add_argument("--num-heldout", type=natural, default=512, help="held-out samples (%(default)s)")
    parser.add_argument("--seed", type=natural, default=0, help="the same seed gives the same bytes (%(default)s)")
    parser.add_argument("--image-size", type=whole, default=64, help="pixels along each side (%(default)s)")
    parser.add_argument(
        "--objects", type=int, nargs="+", choices=(2, 3, 4), default=[2], help="objects of a scene: one of these (2)"
    )
    parser.add_argument("--grid", type=int, choices=(2, 3), default=2, help="cells along each side (%(default)s)")
    _add_packing(parser)


def synth(arguments: argparse.Namespace) -> int:
    """Draw and pack a synthetic set."""
    settings = SynthSettings(
        num_train=arguments.num_train,
        num_heldout=arguments.num_heldout,
        seed=arguments.seed,
        image_size=arguments.image_size,
        rules=SceneRules(tuple(sorted(set(arguments.objects))), arguments.grid),
        samples_per_shard=arguments.samples_per_shard,
    )
    start = time.monotonic()
    counts = synthesize(arguments.out, settings, arguments.processes, overwrite=arguments.overwrite)
    seconds = time.monotonic() - start
    written = " and ".join(f"{number} in {arguments.out / split}" for split, number in counts.items() if number)
    _say(f"{written}: written in {seconds:.1f} s")
    return 0


def tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata tokenizer`."""
    parser.add_argument("shards", nargs="+", help="folders of shards, tar files or patterns")
    parser.add_argument("--out", type=Path, required=True, help="the model to write")
    parser.add_argument("--vocab-size", type=whole, default=512, help="pieces, at most (%(default)s)")


def tokenizer(arguments: argparse.Namespace) -> int:
    """Train a tokenizer on the captions of shards."""
    captions = list(read_captions(find_shards(arguments.shards, "SHARDS")))
    if not captions:
        raise DataError(f"no sample of {' '.join(arguments.shards)} has a caption (KEY.txt) to train on")
    trained = train_tokenizer(captions, arguments.out, arguments.vocab_size)
    _say(f"{arguments.out}: {trained.num_pieces} pieces, trained on {len(captions)} captions")
    return 0


def _add_packing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples-per-shard", type=whole, default=1000, help="(%(default)s)")
    parser.add_argument("--processes", type=whole, default=default_processes(), help="(%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace the shards that already lie there")


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def _say(sentence: str) -> None:
    Console(soft_wrap=True, highlight=False, markup=False).print(sentence)
