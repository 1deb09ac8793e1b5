"""Compare: runs in, their last held-out scores in one table out, beside what one gets without looking.

mmtrain compare runs/captions runs/captions-from-random
mmtrain compare runs/downstream/pretrained runs/downstream/random --scores "*accuracy" "*recall_at_1" --json table.json
"""

import argparse
import sys
from collections.abc import Sequence

from mmtrain.io.arguments import Parser, local_path
from mmtrain.io.command import run_command
from mmtrain.io.console import PlainTable, print_table
from mmtrain.io.errors import InputError
from mmtrain.io.results import ResultFile
from mmtrain.monitor.results import Line, compared, last_scores, runs_of
from mmtrain.scores.units import format_score

TABLE_WIDTH = 120  # at least, whatever the terminal is: a table cut short says nothing


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 with one clear message where there is nothing to compare."""
    return run_command(lambda: compare(_parser().parse_args(argv)), "mmtrain")


def _parser() -> Parser:
    parser = Parser(prog="mmtrain compare", description="Put held-out scores of runs side by side.")
    parser.add_argument(
        "runs", nargs="+", type=local_path, metavar="RUN", help="a run, or a folder of runs: one column each"
    )
    parser.add_argument("--scores", nargs="+", default=[], metavar="PATTERN", help='as in "*recall_at_1" (all)')
    parser.add_argument("--json", type=local_path, metavar="FILE", help="also write one JSON object a score")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --json where there is one")
    return parser


def compare(words: argparse.Namespace) -> int:
    """Print the table of the runs' last scores."""
    names = [str(place) for place in words.runs]
    file = ResultFile(words.json, flag="--json", overwrite=words.overwrite) if words.json else None
    columns = [
        {name: value for run in runs_of(place) for name, value in last_scores(run).items()} for place in words.runs
    ]
    lines = compared(columns, words.scores)
    if not lines:
        raise InputError(f"{', '.join(names)} hold no held-out score that --scores names")
    if file is not None:
        with file:
            for line in lines:
                file.write(line.record(names))
    print_table(_table(lines, names), min_width=TABLE_WIDTH)
    return 0


def _table(lines: Sequence[Line], names: Sequence[str]) -> PlainTable:
    table = PlainTable("evaluation", "score", "prior", *names, overflow="fold", title="held-out scores")
    above = ""
    for line in lines:
        cells = ["" if value is None else format_score(line.score, value) for value in (line.prior, *line.values)]
        table.add_row(line.evaluation if line.evaluation != above else "", line.score, *cells)
        above = line.evaluation
    return table


if __name__ == "__main__":
    sys.exit(main())
