"""Compare: runs in, their last held-out scores in one table out, beside what one gets without looking.

mmtrain compare runs/captions runs/captions-from-random
mmtrain compare runs/downstream/pretrained runs/downstream/random --scores "*accuracy" "*recall_at_1" --json table.json
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from mmtrain.monitor.log import Row
from mmtrain.monitor.results import Line, compared, last_scores, runs_of
from mmtrain.parallel.launch import or_refused

TABLE_WIDTH = 120  # at least, whatever the terminal is


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 with one clear message where there is nothing to compare."""
    words = _parser().parse_args(argv)
    return or_refused(partial(compare, words), (FileNotFoundError,))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mmtrain compare", description="Put held-out scores of runs side by side.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run, or a folder of runs: one column each")
    parser.add_argument("--scores", nargs="+", default=[], metavar="PATTERN", help='as in "*recall_at_1" (all)')
    parser.add_argument("--json", type=Path, help="also write one JSON object a score")
    return parser


def compare(words: argparse.Namespace) -> int:
    """Print the table of the runs' last scores."""
    names = [str(place) for place in words.runs]
    columns = [
        {name: value for run in runs_of(place) for name, value in last_scores(run).items()} for place in words.runs
    ]
    lines = compared(columns, words.scores)
    if not lines:
        raise FileNotFoundError(f"{', '.join(names)} hold no held-out score that --scores names")
    if words.json is not None:
        rows: list[Row] = [line.record(names) for line in lines]
        words.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    Console(width=max(Console().width, TABLE_WIDTH)).print(_table(lines, names))  # a table cut short says nothing
    return 0


def _table(lines: Sequence[Line], names: Sequence[str]) -> Table:
    columns = [Column(name, overflow="fold") for name in ("evaluation", "score", "prior", *names)]
    table = Table(*columns, title="held-out scores")
    above = ""
    for line in lines:
        cells = [_cell(line.score, value) for value in (line.prior, *line.values)]
        table.add_row(line.evaluation if line.evaluation != above else "", line.score, *cells)
        above = line.evaluation
    return table


def _cell(score: str, value: float | None) -> str:
    """A share of 1 in percent; perplexities, CIDEr and lengths as they are."""
    if value is None:
        return ""
    return f"{value:.1%}" if value <= 1 and not score.endswith(("perplexity", "cider", "cider_d")) else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
