"""Search: pictures and an export (or a run) in; asked in words, the pictures that fit best out.

mmtrain search runs/retrieval "a red star above a blue ring" --images photos/
mmtrain search runs/retrieval --images "photos/*.jpg" more/ --index photos.npz     embeddings in a file, for any use
mmtrain search runs/retrieval "a dog" "a cat on a mat" --index photos.npz --top 3
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.config.load import ConfigError
from mmtrain.data.faults import DataError
from mmtrain.parallel.launch import hush_expected_warnings, or_refused

if TYPE_CHECKING:
    from mmtrain.deploy.search import Indexed, PictureIndex
    from mmtrain.hf import VLBertForImageTextRetrieval

SOME_LEFT_OUT = 1  # exit code where a picture could not be read, and the others were looked at


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 where pictures were passed over; 2 with one clear message where nothing can be searched."""
    words = _parser().parse_args(argv)
    hush_expected_warnings()
    return or_refused(partial(search, words), (ConfigError, DataError, CheckpointError, FileNotFoundError))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mmtrain search", description="Find pictures by words.")
    parser.add_argument("model", type=Path, help="an export, or a run folder (its newest checkpoint is taken)")
    parser.add_argument("queries", nargs="*", metavar="QUERY", help="what the pictures are to show, in quotes")
    parser.add_argument("--images", nargs="+", default=[], metavar="PLACE", help="files, folders or patterns")
    parser.add_argument("--index", type=Path, metavar="FILE.npz", help="written with --images, else read")
    parser.add_argument("--top", type=int, default=5, help="pictures a query (%(default)s)")
    parser.add_argument("--shortlist", type=int, default=16, help="of them looked at closely (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="pictures at once (%(default)s)")
    parser.add_argument("--jsonl", type=Path, help="also write one JSON object for each picture found")
    return parser


def search(words: argparse.Namespace) -> int:
    """Index, if pictures are given; then answer each query. What cannot be read is named on stderr."""
    if not words.images and (words.index is None or not words.queries):
        raise FileNotFoundError("nothing to search: give --images, or a query and an --index that is there")
    if min(words.top, words.shortlist, words.batch_size) < 1:
        raise FileNotFoundError("--top, --shortlist and --batch-size count pictures; wanted at least 1")
    from mmtrain.deploy.pictures import open_twin
    from mmtrain.deploy.search import PictureIndex
    from mmtrain.deploy.search import search as find
    from mmtrain.hf import VLBertForImageTextRetrieval

    model = open_twin(words.model, VLBertForImageTextRetrieval)
    left_out: list[Indexed] = []
    index = _indexed(words, model, left_out) if words.images else PictureIndex.load(words.index, model)
    rows = []
    for query in words.queries:
        found, gone = find(model, index, query, top=words.top, shortlist=words.shortlist)
        left_out += gone
        print(query)
        for one in found:
            print(f"  {one.probability:6.1%}  {one.similarity:+.3f}  {one.path}")
            rows.append({"query": query, "path": one.path, "match": one.probability, "similarity": one.similarity})
    if words.jsonl is not None:
        words.jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for one in left_out:
        print(f"mmtrain: {one.path} passed over: {one.fault}", file=sys.stderr)
    return SOME_LEFT_OUT if left_out else 0


def _indexed(
    words: argparse.Namespace, model: "VLBertForImageTextRetrieval", left_out: list["Indexed"]
) -> "PictureIndex":
    import numpy as np

    from mmtrain.deploy.pictures import find_images
    from mmtrain.deploy.search import PictureIndex, embed, space_of

    paths = [path for word in words.images for path in find_images(word)]
    console, found = Console(stderr=True), []
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("pictures", total=len(paths))
        for one in embed(model, paths, batch_size=words.batch_size):
            (found if one.fault is None else left_out).append(one)
            progress.advance(bar)
    if not found:
        raise FileNotFoundError(
            f"none of the {len(paths)} pictures can be read; {left_out[0].path}: {left_out[0].fault}"
        )
    index = PictureIndex(
        tuple(str(one.path) for one in found), np.stack([one.embedding_E for one in found]), space_of(model)
    )
    if words.index is not None:
        index.save(words.index)
        print(f"{words.index}: {len(found)} embeddings of {index.embeddings_NE.shape[1]}")
    return index


if __name__ == "__main__":
    sys.exit(main())
