"""The commands of `mmdata`: for each its arguments, and what it says when it is done."""

import argparse
import time
from pathlib import Path

from rich.console import Console

from data_tools.build import BuildSettings, build_shards
from data_tools.images import ImageRules
from data_tools.left_out import reasons_table
from data_tools.pack import LEFT_OUT_NAME, MANIFEST_NAME
from data_tools.parallel import default_processes
from data_tools.report import survey_shards, survey_table, write_sheet
from data_tools.scenes import SceneRules
from data_tools.sources import Columns
from data_tools.synthetic import SynthSettings, synthesize
from data_tools.tokenizer import read_captions, train_tokenizer
from data_tools.verify import verify_shards
from mmtrain.data.index import DataError, find_shards

DAMAGED = 1  # exit code of `verify`: something is wrong with the shards
LEFT_SOME_OUT = 3  # exit code of `build --strict`: the shards are written, but not every sample is in them


def whole(text: str) -> int:
    """A whole number of at least 1."""
    return _at_least(1, text)


def natural(text: str) -> int:
    """A whole number of at least 0."""
    return _at_least(0, text)


def synth_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata synth`."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that gets train/ and heldout/")
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


def build_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata build`."""
    parser.add_argument("input", type=Path, metavar="INPUT", help="a .csv, .tsv, .jsonl, or a folder of images")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that gets the shards")
    parser.add_argument("--image-column", default="image", help="column of image paths (%(default)s)")
    parser.add_argument("--caption-column", default="caption", help="column of captions (%(default)s)")
    parser.add_argument("--resize", type=whole, metavar="PIXELS", help="shorter side; smaller images stay as they are")
    parser.add_argument("--min-side", type=whole, default=1, metavar="PIXELS", help="leave smaller images out")
    parser.add_argument("--quality", type=_quality, default=95, help="of JPEGs written anew (%(default)s)")
    parser.add_argument("--seed", type=natural, help="shuffle the input; without it the order is the input's")
    parser.add_argument("--strict", action="store_true", help=f"exit with {LEFT_SOME_OUT} if any sample is left out")
    _add_packing(parser)


def build(arguments: argparse.Namespace) -> int:
    """Pack images and captions; 0, or with --strict 3 where a sample was left out."""
    rules = ImageRules(arguments.resize, arguments.min_side, arguments.quality)
    settings = BuildSettings(rules, arguments.samples_per_shard, arguments.seed)
    columns = Columns(arguments.image_column, arguments.caption_column)
    start = time.monotonic()
    report = build_shards(
        arguments.input, columns, arguments.out, settings, arguments.processes, overwrite=arguments.overwrite
    )
    seconds = time.monotonic() - start
    _say(f"{report.num_packed} pairs in {report.num_shards} shards in {arguments.out}: written in {seconds:.1f} s")
    if report.left_out:
        Console().print(reasons_table(report.left_out))
        _say(f"{len(report.left_out)} left out; all of them are named in {arguments.out / LEFT_OUT_NAME}")
    return LEFT_SOME_OUT if report.left_out and arguments.strict else 0


def tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata tokenizer`."""
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help="folders of shards, tar files or patterns")
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


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata inspect`."""
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help="folders of shards, tar files or patterns")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="draw images with their captions into a .png")
    parser.add_argument("--num-pictures", type=whole, default=24, help="on the sheet (%(default)s)")
    _add_processes(parser)


def inspect(arguments: argparse.Namespace) -> int:
    """Show what shards hold."""
    shards = find_shards(arguments.shards, "SHARDS")
    Console().print(survey_table(survey_shards(shards, arguments.processes), len(shards)))
    if arguments.sheet:
        count = write_sheet(shards, arguments.sheet, arguments.num_pictures)
        _say(f"{arguments.sheet}: the first {count} images with their captions")
    return 0


def verify_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata verify`."""
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help="folders of shards, tar files or patterns")
    _add_processes(parser)


def verify(arguments: argparse.Namespace) -> int:
    """Check shards; 0 where all is well, 1 where something is wrong."""
    found = verify_shards(arguments.shards, arguments.processes)
    for fault in found.faults:
        _say(str(fault))
    for folder in found.without_manifest:
        _say(f"{folder} has no {MANIFEST_NAME}: its checksums were not checked")
    _say(f"{found.num_samples} samples in {found.num_shards} shards: {len(found.faults) or 'no'} faults")
    return DAMAGED if found.faults else 0


def _add_packing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples-per-shard", type=whole, default=1000, help="(%(default)s)")
    _add_processes(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the shards that already lie there")


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=whole, default=default_processes(), help="(%(default)s)")


def _quality(text: str) -> int:
    if whole(text) > 100:
        raise argparse.ArgumentTypeError(f"{text} is above 100")
    return int(text)


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def _say(sentence: str) -> None:
    Console(soft_wrap=True, highlight=False, markup=False).print(sentence)
