"""Search: pictures and an export (or a run) in; asked in words, the pictures that fit best out.

mmtrain search runs/retrieval "a red star above a blue ring" --images photos/
mmtrain search runs/retrieval --images "photos/*.jpg" more/ --index photos.npz     embeddings in a file, for any use
mmtrain search runs/retrieval "a dog" "a cat on a mat" --index photos.npz --top 3
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from mmtrain.io.arguments import Parser, local_path, whole
from mmtrain.io.arguments import words as query
from mmtrain.io.command import ExitCode, run_command
from mmtrain.io.console import print_error, print_report, print_result, progress_bar
from mmtrain.io.errors import InputError
from mmtrain.io.replace import check_output_file
from mmtrain.io.results import ResultFile
from mmtrain.parallel.launch import hush_expected_warnings

if TYPE_CHECKING:
    from mmtrain.deploy.search import Found, PictureIndex
    from mmtrain.hf import VLBertForImageTextRetrieval


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 where pictures were passed over; 2 with one clear message where nothing can be searched."""
    return run_command(lambda: search(_parser().parse_intermixed_args(argv)), "mmtrain")


def _parser() -> Parser:
    parser = Parser(prog="mmtrain search", description="Find pictures by words.")
    parser.add_argument("model", type=local_path, help="an export, or a run folder (its newest checkpoint is taken)")
    parser.add_argument("queries", nargs="*", type=query, metavar="QUERY", help="what pictures are to show, in quotes")
    parser.add_argument("--images", nargs="+", default=[], metavar="PLACE", help="files, folders or patterns")
    parser.add_argument("--index", type=local_path, metavar="FILE.npz", help="written with --images, else read")
    parser.add_argument("--top", type=whole, default=5, help="pictures a query (%(default)s)")
    parser.add_argument("--shortlist", type=whole, default=16, help="of them looked at closely (%(default)s)")
    parser.add_argument("--batch-size", type=whole, default=32, help="pictures at once (%(default)s)")
    parser.add_argument(
        "--jsonl",
        type=local_path,
        metavar="FILE",
        help="also write one JSON object for each picture found, as it comes",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the files of --jsonl and --index")
    return parser


def search(flags: argparse.Namespace) -> int:
    """Index, if pictures are given; then answer each query. What cannot be read is named on stderr."""
    if not flags.images and (flags.index is None or not flags.queries):
        raise InputError("nothing to search: give --images, or a query and an --index that is there")
    file = ResultFile(flags.jsonl, flag="--jsonl", overwrite=flags.overwrite) if flags.jsonl else None
    from mmtrain.deploy.search import PictureIndex, index_path, is_index

    if flags.index is not None:
        flags.index = index_path(flags.index, exists=not flags.images)
        if flags.images:
            check_output_file(
                flags.index,
                flag="--index",
                overwrite=flags.overwrite,
                is_ours=is_index,
                kind="an index of this command",
            )
    hush_expected_warnings()
    from mmtrain.deploy.models import load_model
    from mmtrain.deploy.search import search as find
    from mmtrain.hf import VLBertForImageTextRetrieval

    model = load_model(flags.model, VLBertForImageTextRetrieval)
    left_out: list[Path] = []
    index = _indexed(flags, model, left_out) if flags.images else PictureIndex.load(flags.index, model)
    with file or nullcontext():
        for words in flags.queries:
            found, gone = find(model, index, words, top=flags.top, shortlist=flags.shortlist)
            for one in gone:
                if one.path not in left_out:
                    _name_left_out(one.path, one.fault, left_out)
            if file is not None:
                for one in found:
                    file.write(_row(words, one))
            _show(words, found, is_result=file is None)
    return ExitCode.FAILED if left_out else ExitCode.DONE


def _indexed(flags: argparse.Namespace, model: "VLBertForImageTextRetrieval", left_out: list[Path]) -> "PictureIndex":
    import numpy as np

    from mmtrain.deploy.pictures import find_images
    from mmtrain.deploy.search import PictureIndex, embed, space_of, without_repeats

    paths = without_repeats(path for name in flags.images for path in find_images(name))
    found, fault = [], ""
    with progress_bar("pictures", len(paths)) as advance:
        for one in embed(model, paths, batch_size=flags.batch_size):
            if one.fault is None:
                found.append(one)
            else:
                fault = fault or f"{one.path}: {one.fault}"
                _name_left_out(one.path, one.fault, left_out)
            advance()
    if not found:
        raise InputError(f"none of the {len(paths)} pictures can be read; the first is {fault}")
    index = PictureIndex(
        tuple(str(one.path) for one in found), np.stack([one.embedding_E for one in found]), space_of(model)
    )
    if flags.index is not None:
        index.save(flags.index)
        print_report(f"{flags.index}: {len(found)} embeddings of {index.embeddings_NE.shape[1]}")
    return index


def _name_left_out(path: Path, fault: str | None, left_out: list[Path]) -> None:
    left_out.append(path)
    print_error("mmtrain", f"{path} passed over: {fault}")


def _show(words: str, found: Sequence["Found"], *, is_result: bool) -> None:
    write = print_result if is_result else print_report
    write(words)
    for one in found:
        write(f"  {one.probability:6.1%}  {one.similarity:+.3f}  {one.path}")


def _row(words: str, one: "Found") -> dict[str, str | float]:
    return {"query": words, "path": one.path, "match": one.probability, "similarity": one.similarity}


if __name__ == "__main__":
    sys.exit(main())
