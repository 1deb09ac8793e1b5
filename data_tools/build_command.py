"""`mmdata build` and `mmdata merge`: their arguments, and what they say when they are done."""

import argparse
import time
from pathlib import Path

from data_tools.arguments import add_processes, say
from data_tools.assembly import BuildReport
from data_tools.build import Earlier, Effort, build_shards, merge_parts
from data_tools.build_arguments import add_flags, fetch_rules_of, part, settings_of, source_options_of
from data_tools.left_out import MAX_EXAMPLES, Tally
from data_tools.pack import LEFT_OUT_NAME, TABLE_NAME
from mmtrain.io.arguments import local_path
from mmtrain.io.console import PlainTable, print_table

LEFT_SOME_OUT = 3  # exit code with --strict: the shards are written, but not every sample is in them
INPUT_HELP = (
    "a .csv, .tsv, .jsonl or .parquet of paths or addresses with captions, a .parquet also of images; a folder of "
    "images with .txt beside them or a metadata.csv, .jsonl or .parquet; a COCO captions .json, or with splits; a "
    ".token; .tar shards or a folder of them, also img2dataset's"
)


def build_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata build`."""
    parser.add_argument("input", nargs="+", metavar="INPUT", help=INPUT_HELP)
    parser.add_argument("out", type=local_path, metavar="OUT", help="folder that gets the shards")
    add_flags(parser)
    parser.add_argument("--strict", action="store_true", help=f"exit with {LEFT_SOME_OUT} if anything is left out")
    add_processes(parser)
    parser.add_argument(
        "--part", type=part, metavar="I/N", help="prepare only part I of N, from 0; `mmdata merge OUT` then packs"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the shards that already lie there")


def build(arguments: argparse.Namespace) -> int:
    """Pack images and captions; 0, or with --strict 3 where a sample was left out."""
    start = time.monotonic()
    report = build_shards(
        arguments.input,
        arguments.out,
        settings_of(arguments),
        options=source_options_of(arguments),
        effort=Effort(arguments.processes, fetch_rules_of(arguments), arguments.part),
        earlier=Earlier(tuple(arguments.against), arguments.retry_failed),
        overwrite=arguments.overwrite,
    )
    if report is None:
        number, count = arguments.part
        say(f"part {number} of {count} is prepared; when all are, `mmdata merge {arguments.out}` packs them")
        return 0
    _tell(report, arguments.out, time.monotonic() - start)
    return LEFT_SOME_OUT if (report.left_out or report.losses) and arguments.strict else 0


def merge_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mmdata merge`."""
    parser.add_argument("out", type=local_path, metavar="OUT", help="the folder that all parts were built into")
    add_processes(parser)


def merge(arguments: argparse.Namespace) -> int:
    """Pack what the parts have prepared."""
    start = time.monotonic()
    _tell(merge_parts(arguments.out, arguments.processes), arguments.out, time.monotonic() - start)
    return 0


def _tell(report: BuildReport, out: Path, seconds: float) -> None:
    say(f"{report.num_packed} pairs in {report.num_shards} shards in {out}: written in {seconds:.1f} s")
    say(str(report.accounts))
    if report.left_out or report.losses:
        print_table(_reasons_table(report.left_out, report.losses), is_result=False)
    if report.losses:
        say(f"{len(report.losses)} captions or values of samples that are kept are named in {out / LEFT_OUT_NAME}")
    if report.left_out:
        say(f"{len(report.left_out)} left out; all are named in {out / LEFT_OUT_NAME} and {out / TABLE_NAME}")


def _reasons_table(left_out: Tally, losses: Tally) -> PlainTable:
    """What was left out, by reason, with examples."""
    table = PlainTable("left out because of", "times", "for example", title_justify="left")
    for tally, what in ((left_out, ""), (losses, " (in samples that are kept)")):
        for reason, count in tally.counts().items():
            more = ", ..." if count > MAX_EXAMPLES else ""
            table.add_row(reason + what, str(count), ", ".join(tally.examples.get(reason, ())) + more)
    return table
