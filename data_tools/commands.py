"""The commands of `mmdata`: for each its arguments, and what it says when it is done."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from data_tools.answers import common_answers, is_answer_list
from data_tools.arguments import add_processes, say
from data_tools.foreign import index_shards
from data_tools.page import check_page_name, is_page, write_page
from data_tools.report import check_sheet_name, is_sheet, survey_shards, survey_table, write_sheet
from data_tools.scenes import SceneRules
from data_tools.synthetic import SynthSettings, synthesize
from data_tools.tokenizer import is_tokenizer, read_texts, train_tokenizer
from data_tools.verify import MANIFEST_NAME, verify_shards
from mmtrain.data.index import DataError, find_shards, index_path
from mmtrain.io.arguments import local_path, natural, whole
from mmtrain.io.atomic import atomic_write
from mmtrain.io.console import print_table
from mmtrain.io.replace import check_output_file

DAMAGED = 1  # exit code of `verify` and `index`: something is wrong with the shards
SHARDS_HELP = "folders of shards, tar files or patterns"


def synth_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata synth`."""
    parser.add_argument("out", type=local_path, metavar="OUT", help="folder that gets train/ and heldout/")
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
    say(f"{written}: written in {seconds:.1f} s")
    return 0


def tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata tokenizer`."""
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help=SHARDS_HELP)
    parser.add_argument("--out", type=local_path, required=True, help="the model to write")
    parser.add_argument("--vocab-size", type=whole, default=512, help="pieces, at most (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace the tokenizer that is there")


def tokenizer(arguments: argparse.Namespace) -> int:
    """Train a tokenizer on the captions, questions and answers of shards."""
    shards = find_shards(arguments.shards, "SHARDS")
    _check_output(arguments, "--out", shards, is_tokenizer, "a sentencepiece model")
    texts = list(read_texts(shards))
    if not texts:
        raise DataError(f"no sample of {' '.join(arguments.shards)} has a caption (KEY.txt) to train on")
    trained = train_tokenizer(texts, arguments.out, arguments.vocab_size)
    say(f"{arguments.out}: {trained.num_pieces} pieces, trained on {len(texts)} texts")
    return 0


def answers_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata answers`."""
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help=SHARDS_HELP)
    parser.add_argument("--out", type=local_path, required=True, help="the file to write, an answer a line")
    parser.add_argument("--min-count", type=whole, default=9, help="questions that must have the answer (%(default)s)")
    parser.add_argument("--most", type=whole, help="answers, the commonest (all)")
    parser.add_argument("--overwrite", action="store_true", help="replace the list that is there")


def answers(arguments: argparse.Namespace) -> int:
    """List the answers that the questions of shards have most often."""
    shards = find_shards(arguments.shards, "SHARDS")
    _check_output(arguments, "--out", shards, is_answer_list, "a list of answers")
    found, share, num_unusable = common_answers(shards, min_count=arguments.min_count, most=arguments.most)
    if num_unusable:
        say(f"{num_unusable} questions cannot be used and are not counted; `mmdata verify` names their samples")
    if not found:
        raise DataError(
            f"{' '.join(arguments.shards)} hold no answer to --min-count ({arguments.min_count}) questions; lower it, "
            "or name shards with questions in KEY.json"
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(arguments.out, "".join(f"{answer}\n" for answer in found))
    say(f"{arguments.out}: {len(found)} answers, right for {share:.1%} of the questions")
    return 0


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata inspect`."""
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help=SHARDS_HELP)
    parser.add_argument(
        "--report", type=local_path, metavar="FILE", help="write table, histograms and pictures as .html"
    )
    parser.add_argument("--sheet", type=local_path, metavar="FILE", help="draw images with their captions into a .png")
    parser.add_argument("--num-pictures", type=whole, default=24, help="on sheet and report (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace a sheet or report that is there")
    add_processes(parser)


def inspect(arguments: argparse.Namespace) -> int:
    """Show what shards hold."""
    shards = find_shards(arguments.shards, "SHARDS")
    if arguments.sheet:
        check_sheet_name(arguments.sheet)
        _check_output(arguments, "--sheet", shards, is_sheet, "a sheet of `mmdata inspect`")
    if arguments.report:
        check_page_name(arguments.report)
        _check_output(arguments, "--report", shards, is_page, "a report of `mmdata inspect`")
    survey = survey_shards(shards, arguments.processes)
    print_table(survey_table(survey, len(shards)), is_result=False)
    if arguments.sheet:
        count = write_sheet(shards, arguments.sheet, arguments.num_pictures)
        say(f"{arguments.sheet}: the first {count} images with their captions")
    if arguments.report:
        write_page(arguments.report, shards, survey, arguments.num_pictures)
        say(f"{arguments.report}: table, histograms and pictures; open it in a browser")
    return 0


def verify_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata verify`."""
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help=SHARDS_HELP)
    parser.add_argument(
        "--duplicates", choices=("allow", "exact", "near"), default="allow",
        help="whether equal images (exact), or also those that look alike (near), are faults (%(default)s)",
    )  # fmt: skip
    add_processes(parser)


def verify(arguments: argparse.Namespace) -> int:
    """Check shards; 0 where all is well, 1 where something is wrong."""
    found = verify_shards(arguments.shards, arguments.processes, duplicates=arguments.duplicates)
    for fault in found.faults:
        say(str(fault))
    for folder in found.without_manifest:
        say(f"{folder} has no {MANIFEST_NAME}: its checksums were not checked")
    if found.num_equal and arguments.duplicates == "allow":
        say(f"{found.num_equal} images have the bytes of another; --duplicates exact names them")
    say(f"{found.num_samples} samples in {found.num_shards} shards: {len(found.faults) or 'no'} faults")
    return DAMAGED if found.faults else 0


def index_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata index`."""
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help=SHARDS_HELP)
    parser.add_argument("--overwrite", action="store_true", help="replace manifests that already lie there")
    add_processes(parser)


def index(arguments: argparse.Namespace) -> int:
    """Index the shards of other tools; 0 where all is well, 1 where something in them cannot be used."""
    found = index_shards(arguments.shards, arguments.processes, overwrite=arguments.overwrite)
    for fault in found.faults:
        say(str(fault))
    say(f"{found.num_samples} samples in {found.num_shards} shards indexed; {len(found.faults) or 'no'} faults")
    return DAMAGED if found.faults else 0


def _check_output(
    arguments: argparse.Namespace, flag: str, shards: Sequence[Path], is_ours: Callable[[Path], bool], kind: str
) -> None:
    """Refuse, before any work, an output file that exists or that is an input (see `mmtrain.io.replace`)."""
    folders = {shard.parent for shard in shards}
    beside = [*map(index_path, shards), *(folder / MANIFEST_NAME for folder in folders)]
    check_output_file(
        getattr(arguments, flag.strip("-")),
        flag=flag,
        overwrite=arguments.overwrite,
        inputs=[*shards, *beside],
        is_ours=is_ours,
        kind=kind,
        make_parents=flag == "--out",
    )


def _add_packing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples-per-shard", type=whole, default=1000, help="(%(default)s)")
    add_processes(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the shards that already lie there")
