"""Export: a run folder in, a Hugging Face folder out.

mmtrain export runs/demo                     writes runs/demo/export
mmtrain export runs/base --step 50000 --out models/base --dtype bf16
"""

import argparse
import sys
from collections.abc import Sequence

from mmtrain.deploy.output import check_export_output
from mmtrain.io.arguments import Parser, local_path, natural
from mmtrain.io.command import run_command
from mmtrain.io.console import print_report
from mmtrain.parallel.launch import hush_expected_warnings


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 with one clear message when the run cannot be exported as asked."""
    return run_command(lambda: export(_parser().parse_args(argv)), "mmtrain", needs_stdout=False)


def _parser() -> Parser:
    parser = Parser(prog="mmtrain export", description="Write a checkpoint as a Hugging Face folder.")
    parser.add_argument("run_dir", type=local_path, help="a run folder with a checkpoint")
    parser.add_argument("--out", type=local_path, help="folder to write (default: RUN/export)")
    parser.add_argument("--step", type=natural, help="optimizer steps of the checkpoint (default: the newest)")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="type of the weights (default: fp32)")
    parser.add_argument("--overwrite", action="store_true", help="replace the export that is there; nothing else is")
    return parser


def export(words: argparse.Namespace) -> int:
    """Write the folder, and say what is in it."""
    hush_expected_warnings()
    run_dir, out = words.run_dir, words.out or words.run_dir / "export"
    check_export_output(run_dir, out, overwrite=words.overwrite)

    from mmtrain.deploy.export import export_run
    from mmtrain.parallel.device import PRECISIONS

    done = export_run(run_dir, out, step=words.step, dtype=PRECISIONS[words.dtype], overwrite=words.overwrite)
    print_report(
        f"{done.folder}: {done.num_parameters:,} parameters after step {done.step}, {done.num_bytes / 2**20:,.1f} MiB "
        f"of weights in {words.dtype}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
