"""The flags of `mmdata build`, and the rules that they give."""

import argparse
import re

from data_tools.build import BuildSettings
from data_tools.confine import TableRules
from data_tools.duplicates import MOST_BITS
from data_tools.fetch import FetchRules
from data_tools.images import ImageRules
from data_tools.selection import CutRules
from data_tools.sources import SourceOptions
from data_tools.tables import Columns
from data_tools.texts import CaptionRules, fold
from mmtrain.data.index import DataError
from mmtrain.io.arguments import at_least, fraction, local_path, natural, size_in_bytes, whole, whole_within
from mmtrain.io.urls import HTTP_SCHEMES


def add_flags(parser: argparse.ArgumentParser) -> None:
    """All flags that say what is built and how hard bytes are asked for."""
    _add_source(parser.add_argument_group("the input"))
    _add_images(parser.add_argument_group("images"))
    _add_captions(parser.add_argument_group("captions"))
    _add_cut(parser.add_argument_group("shards and duplicates"))
    _add_fetch(parser.add_argument_group("downloads"))


def _add_source(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--image-column", default="image", help="of paths or addresses (%(default)s)")
    group.add_argument("--caption-column", default="caption", help="of captions, also in a .json (%(default)s)")
    group.add_argument("--no-quotes", action="store_true", help="in .csv and .tsv quotes are plain characters")
    group.add_argument(
        "--keep-columns", nargs="+", action="extend", default=[], metavar="COLUMN", help="go on into KEY.json"
    )
    group.add_argument("--image-root", metavar="PLACE", help="folder or address that image names are seen from")
    group.add_argument(
        "--allow-outside-root",
        action="store_true",
        help="paths in a table may leave the image root (by default: its own folder)",
    )
    group.add_argument(
        "--allow-schemes", nargs="+", action="extend", default=[], metavar="SCHEME",
        help="of addresses in a table, as in s3, beside http, https and that of --image-root",
    )  # fmt: skip
    group.add_argument(
        "--split", nargs="+", action="extend", default=[], metavar="NAME", help="wanted of a file of Karpathy's kind"
    )
    group.add_argument("--group", action="store_true", help="rows of one image become one sample with all captions")
    group.add_argument(
        "--vqa", nargs="+", action="append", default=[], metavar="FILE",
        help="VQA v2 questions and, if there are any, their annotations, kept as questions in KEY.json",
    )  # fmt: skip
    group.add_argument(
        "--retry-failed",
        type=local_path,
        metavar="EARLIER",
        help="only what an earlier build of this INPUT could not fetch",
    )


def _add_images(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--resize", type=whole, metavar="PIXELS", help="shorter side; smaller images stay as they are")
    group.add_argument("--reencode", action="store_true", help="write every image anew; else bytes stay where they may")
    group.add_argument("--quality", type=whole_within(1, 100), default=95, help="of JPEGs written anew (%(default)s)")
    group.add_argument("--min-side", type=whole, default=1, metavar="PIXELS", help="leave smaller images out")
    group.add_argument("--max-aspect", type=at_least(1.0), metavar="RATIO", help="leave longer images out")


def _add_captions(group: argparse._ArgumentGroup) -> None:
    plain = CaptionRules()
    group.add_argument("--min-words", type=natural, default=plain.min_words, help="(%(default)s)")
    group.add_argument("--max-words", type=whole)
    group.add_argument("--min-characters", type=natural, default=plain.min_characters, help="(%(default)s)")
    group.add_argument("--max-characters", type=whole)
    group.add_argument("--min-letter-share", type=fraction, default=0.0, help="of its characters (%(default)s)")
    group.add_argument("--max-repeat-share", type=fraction, default=1.0, help="of the commonest word (%(default)s)")
    group.add_argument("--drop-links", action="store_true", help="captions with an address in them")
    group.add_argument("--drop-alt-texts", action="store_true", help="names of files and what pages write everywhere")
    group.add_argument("--blacklist", type=local_path, metavar="FILE", help="whole captions to leave out, one a line")
    group.add_argument("--apart", action="store_true", help="a sample per caption; else all captions are in KEY.json")


def _add_cut(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--samples-per-shard", type=whole, help="(1000, where no bytes are given)")
    group.add_argument("--bytes-per-shard", type=size_in_bytes, metavar="SIZE", help="at most, as in 500M or 1G")
    group.add_argument("--seed", type=natural, help="shuffle the input; without it the order is the input's")
    group.add_argument("--dedup", choices=("none", "exact", "near"), default="none", help="images seen before")
    group.add_argument(
        "--near-bits", type=int, choices=range(MOST_BITS + 1), default=6, help="of 128 that may differ (%(default)s)"
    )
    group.add_argument(
        "--against",
        type=local_path,
        nargs="+",
        action="extend",
        default=[],
        metavar="SET",
        help="earlier builds whose images count as seen",
    )


def _add_fetch(group: argparse._ArgumentGroup) -> None:
    plain = FetchRules()
    group.add_argument("--threads", type=whole, default=plain.threads, help="at once, per process (%(default)s)")
    group.add_argument("--retries", type=natural, default=plain.retries, help="after the first attempt (%(default)s)")
    group.add_argument("--backoff", type=at_least(0.0), default=plain.backoff_seconds, metavar="SECONDS",
                       help="before the first of them, doubled each time (%(default)s)")  # fmt: skip
    group.add_argument("--timeout", type=at_least(0.1), default=plain.timeout_seconds, metavar="SECONDS",
                       help="without a byte (%(default)s)")  # fmt: skip
    group.add_argument("--allow-private-addresses", action="store_true",
                       help="addresses in a table may lead to this machine and into private networks")  # fmt: skip


def settings_of(arguments: argparse.Namespace) -> BuildSettings:
    """What the bytes of the shards follow from; DataError where flags contradict each other."""
    count = arguments.samples_per_shard or (None if arguments.bytes_per_shard else CutRules().samples_per_shard)
    if arguments.against and arguments.dedup == "none":
        raise DataError("--against compares nothing with --dedup none; give --dedup exact or near")
    return BuildSettings(
        ImageRules(
            arguments.resize,
            arguments.min_side,
            arguments.max_aspect,
            arguments.quality,
            arguments.reencode,
            looks=arguments.dedup == "near",
        ),
        _caption_rules(arguments),
        CutRules(count, arguments.bytes_per_shard, arguments.apart, arguments.dedup, arguments.near_bits),
        arguments.seed,
    )


def _caption_rules(arguments: argparse.Namespace) -> CaptionRules:
    blacklist: tuple[str, ...] = ()
    if arguments.blacklist:
        try:
            lines = arguments.blacklist.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"--blacklist {arguments.blacklist} is not UTF-8 text: {error}") from error
        blacklist = tuple(sorted({fold(line) for line in lines} - {""}))
    return CaptionRules(
        arguments.min_words,
        arguments.max_words,
        arguments.min_characters,
        arguments.max_characters,
        arguments.min_letter_share,
        arguments.max_repeat_share,
        arguments.drop_links,
        arguments.drop_alt_texts,
        blacklist,
    )


def source_options_of(arguments: argparse.Namespace) -> SourceOptions:
    """How the input is read."""
    for files in arguments.vqa:
        if len(files) > 2:
            raise DataError(f"--vqa got {len(files)} files; wanted questions and their annotations; repeat it for more")
    questions = tuple((files[0], files[1] if len(files) > 1 else None) for files in arguments.vqa)
    kept = tuple(dict.fromkeys(arguments.keep_columns))
    columns = Columns(arguments.image_column, arguments.caption_column, kept, quotes=not arguments.no_quotes)
    table = TableRules((*HTTP_SCHEMES, *map(_scheme, arguments.allow_schemes)), arguments.allow_outside_root)
    return SourceOptions(columns, arguments.image_root, questions, tuple(arguments.split), table, arguments.group)


def fetch_rules_of(arguments: argparse.Namespace) -> FetchRules:
    """How hard bytes are asked for."""
    return FetchRules(
        arguments.threads,
        arguments.retries,
        arguments.backoff,
        arguments.timeout,
        arguments.allow_private_addresses,
    )


def _scheme(text: str) -> str:
    """A scheme as it is compared, also where it was given as "s3://"."""
    return text.lower().removesuffix("://").removesuffix(":")


def part(text: str) -> tuple[int, int]:
    """I and N of "I/N"."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no part; wanted I/N with I from 0 to N - 1, as in 0/8")
    return int(found[1]), int(found[2])
