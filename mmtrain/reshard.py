"""Reshard: a checkpoint in; what it holds, whether it is whole, or the same written anew as one file out.

mmtrain reshard runs/demo                                 step, layout, versions, tensors, sizes
mmtrain reshard runs/demo --verify                        every byte against its checksum
mmtrain reshard runs/demo --to runs/small --weights-only --dtype bf16
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.checkpoint.folders import folder_of, partial_of
from mmtrain.io.arguments import Parser, local_path
from mmtrain.io.command import run_command
from mmtrain.io.console import PlainTable, print_result, print_table, print_text
from mmtrain.io.replace import CHECKPOINTS, check_output_folder
from mmtrain.monitor.log import start_logging
from mmtrain.parallel.launch import hush_expected_warnings

if TYPE_CHECKING:
    from mmtrain.checkpoint.convert import Stored
    from mmtrain.checkpoint.load import Found


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 with one message that names every fault of the checkpoint."""
    return run_command(lambda: reshard(_parser().parse_args(argv)), "mmtrain")


def _parser() -> Parser:
    parser = Parser(
        prog="mmtrain reshard",
        description="Say what a checkpoint holds, verify it, or write it anew as one file. Any layout loads any "
        "checkpoint as it is; nothing has to be converted for that.",
    )
    parser.add_argument(
        "place", type=local_path, help="a run folder (then its newest whole checkpoint), or a checkpoint"
    )
    parser.add_argument("--verify", action="store_true", help="compare every byte with its checksum")
    parser.add_argument("--config", action="store_true", help="print the config of the run as well")
    parser.add_argument(
        "--to", type=local_path, metavar="RUN", help="a run folder to write the checkpoint into, as one file"
    )
    parser.add_argument("--weights-only", action="store_true", help="with --to: leave the optimizer's moments out")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), help="with --to: type of the weights (default: as stored)")
    return parser


def reshard(words: argparse.Namespace) -> int:
    """Look, say, and write where that was asked for."""
    hush_expected_warnings()
    start_logging(rank=0)
    if words.to is None and (words.weights_only or words.dtype):
        raise CheckpointError("--weights-only and --dtype say how a checkpoint is written; add --to RUN")
    if words.to is not None:
        _check_target(words.to)
    # Only now the imports that take seconds: `--help` and a wrong word are answered at once.
    from mmtrain.checkpoint.convert import convert, open_checkpoint, stored_in
    from mmtrain.parallel.device import PRECISIONS

    found = open_checkpoint(words.place, hashes=words.verify or words.to is not None)
    _show(found, stored_in(found.folder))
    if words.config:
        _show_config(found)
    if words.verify:
        print_result(f"every byte of {len(found.manifest.files)} files is what was written")
    if words.to is not None:
        dtype = PRECISIONS[words.dtype] if words.dtype else None
        with _nothing_left_on_failure(words.to, found.manifest.step):
            folder = convert(found, words.to / CHECKPOINTS, weights_only=words.weights_only, dtype=dtype)
        _bring_along(found, words.to)
        num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print_result(f"written: {folder}, {num_bytes / 2**20:,.1f} MiB")
    return 0


def _check_target(run_dir: Path) -> None:
    """Refuse a place where no run folder can be, before anything is read."""
    check_output_folder(run_dir, flag="--to", overwrite=False)
    if os.path.lexists(run_dir / CHECKPOINTS) and not (run_dir / CHECKPOINTS).is_dir():
        raise CheckpointError(f"{run_dir / CHECKPOINTS} is no folder; name another run folder with --to")


@contextmanager
def _nothing_left_on_failure(run_dir: Path, step: int) -> Iterator[None]:
    """Remove what a conversion that fails has written; what was there before stays."""
    partial = partial_of(folder_of(run_dir / CHECKPOINTS, step))
    made = [folder for folder in (partial, partial.parent, run_dir) if not os.path.lexists(folder)]
    try:
        yield
    except BaseException:
        if partial in made:
            shutil.rmtree(partial, ignore_errors=True)
        for folder in made:
            if folder.is_dir() and not os.listdir(folder):
                folder.rmdir()
        raise


def _show(found: "Found", tensors: Sequence["Stored"]) -> None:
    """A table of the weights with their moments, below what the whole is."""
    manifest = found.manifest
    num_bytes = sum(record["bytes"] for record in manifest.files.values())
    weights = [tensor for tensor in tensors if tensor.is_weight]
    kinds = sorted({tensor.name.partition("/")[0] for tensor in tensors if not tensor.is_weight})
    facts = {
        "checkpoint": found.folder,
        "step": manifest.step,
        "order of samples": manifest.stream.get("order_hash") or "not begun",
        "written by": "  ".join(f"{name} {count}" for name, count in manifest.layout.items()) or "unknown",
        "versions": "  ".join(f"{name} {version}" for name, version in manifest.versions.items()) or "unknown",
        "tokenizer": f"{manifest.num_pieces} pieces, sha256 {manifest.tokenizer_sha256[:12]}...",
        "weights": f"{sum(_count(tensor) for tensor in weights):,} in {len(weights)} tensors",
        "moments": ", ".join(kinds) or "none: it cannot be resumed",
        "size": f"{num_bytes / 2**20:,.1f} MiB in {len(manifest.files)} files",
    }
    for what, fact in facts.items():
        print_result(f"{what + ':':<18}{fact}")
    table = PlainTable("tensor", "shape", "type", "rectangles", overflow="fold")
    for tensor in weights:
        shape = " x ".join(map(str, tensor.shape)) or "one number"
        table.add_row(tensor.name, shape, str(tensor.dtype).removeprefix("torch."), str(tensor.num_rectangles))
    print_table(table)


def _count(tensor: "Stored") -> int:
    return tensor.num_bytes // tensor.dtype.itemsize


def _show_config(found: "Found") -> None:
    from mmtrain.config.load import dump_config

    print_text(dump_config(found.manifest.plan()))


def _bring_along(found: "Found", run_dir: Path) -> None:
    """What else of the run a run folder needs to be scored."""
    from mmtrain.monitor.folder import copy_config_and_tokenizer

    copy_config_and_tokenizer(found.folder.parent.parent, run_dir)


if __name__ == "__main__":
    sys.exit(main())
