"""The same numbers on any layout: losses, norms, gradients and weights of each beside one process.

    python -m tests.benchmarks.layouts                  a table on the terminal; some minutes, up to 8 processes
    python -m tests.benchmarks.layouts --markdown       the table of the README
    python -m tests.benchmarks.layouts --only dp2-pp2   one layout

ZeRO-3, fp32, 5 AdamW steps with clipping, one global batch of 32 samples in 4 micro-batches; exit code 1 if a row
misses a bound. With `micro_batch` negatives, ITC contrasts the 8 samples that dp x micro-batch make in each layout.

AdamW divides an entry's gradient by its own size, so entries whose gradient is itself rounding move by the sign of it.
With epsilon 1e-8 that is seen in one entry of a tensor or two (a gradient of -7.5e-8 on one process and -9.4e-8 on tp2,
where the tensor's are 2e-2, moved a weight 6e-4 of the largest apart); 1e-6, as BERT trained with, keeps it out.
One data-parallel rank has nothing to cut, and a run there leaves ZeRO out: that is the third way, beside ZeRO's two.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from typing import Any

from tests.comparison import Distance, Ranks, Run, distance, is_key_bias, train_on
from tests.helpers import tiny_plan

NUM_STEPS, BLOCK, HEAD_SIZE = 5, 8, 8  # optimizer steps; samples of a micro-batch over the dp ranks; of tiny_plan
LEARNING_RATE, EPSILON = 1e-3, 1e-6
BOUND = 1e-4  # of losses and norms relative to their size, of entries relative to the tensor's largest
LAYOUTS = (
    Ranks(),
    Ranks(dp=2),
    Ranks(tp=2),
    Ranks(pp=2),
    Ranks(pp=4),
    Ranks(dp=2, tp=2),
    Ranks(dp=2, pp=2),
    Ranks(tp=2, pp=2),
    Ranks(dp=2, tp=2, pp=2),
    Ranks(tp=2, shares_tokens=True),
    Ranks(tp=2, pp=2, shares_tokens=True),
    Ranks(dp=2, tp=2, pp=2, shares_tokens=True),
    Ranks(pp=2, chunks=2),
    Ranks(dp=2, pp=2, chunks=2),
)
GATHERS, NEGATIVES = ("per_use", "per_step"), ("micro_batch", "global_batch")
COLUMNS = ("layout", "zero.gather", "itc.negatives", "losses", "grad norm", "gradients", "weights", "key biases")


def plan_of(ranks: Ranks, gather: str, negatives: str) -> Any:
    """The run of one row."""
    return tiny_plan(
        parallel=ranks.parallel,
        zero={"stage": 3, "gather": gather},
        itc={"negatives": negatives},
        train={
            "global_batch_size": 4 * BLOCK,
            "micro_batch_size": BLOCK // ranks.dp,
            "learning_rate": LEARNING_RATE,
            "epsilon": EPSILON,
        },
    )


def runs_of(ranks: Ranks) -> dict[tuple[str, str], Run]:
    """The runs of a layout by how weights are gathered and what ITC contrasts."""
    kinds = itertools.product(GATHERS, NEGATIVES)
    runs = {kind: Run(plan_of(ranks, *kind), NUM_STEPS) for kind in kinds}
    if ranks.dp == 1:  # what a run takes by itself there
        runs |= {
            ("(uncut)", kind): Run(plan_of(ranks, "auto", kind), NUM_STEPS, under_zero=False) for kind in NEGATIVES
        }
    return runs


def rows_of(ranks: Ranks, alone: dict[str, Any]) -> list[tuple[list[str], Distance]]:
    """The rows of a layout beside `alone`, one process by negatives, each with what was measured."""
    rows = []
    for (gather, negatives), found in train_on(ranks.world_size, runs_of(ranks)).items():
        far = distance(found, alone[negatives], HEAD_SIZE)
        measured = (far.losses, far.grad_norm, far.gradient[0], far.weight[0], far.key_bias)
        rows.append(([str(ranks), gather, negatives, *(f"{value:.1e}" for value in measured)], far))
    return rows


def beyond(far: Distance) -> str:
    """What is farther than it may be, by name; empty if nothing is."""
    checked = [(far.losses, "losses"), (far.grad_norm, "norm"), far.gradient, far.weight]
    missed = [name for value, name in checked if not value <= BOUND]
    return ", ".join(missed + ["key biases"] * (not far.key_bias <= LEARNING_RATE * NUM_STEPS))


def _line(cells: Sequence[str], markdown: bool) -> str:
    if markdown:
        return f"| {' | '.join(cells)} |"
    widths = (16, 11, 13, 8, 9, 9, 8, 10)
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))


def main() -> int:
    """Run every layout and print its rows as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown")
    parser.add_argument("--only", help="one layout of the table, for instance dp2-pp2")
    asked = parser.parse_args()
    chosen = [ranks for ranks in LAYOUTS if asked.only in (None, str(ranks))]
    if not chosen:
        parser.error(f"no layout {asked.only}; there are {', '.join(map(str, LAYOUTS))}")
    print(_line(COLUMNS, asked.markdown))
    if asked.markdown:
        print(_line(["---"] * len(COLUMNS), True))
    alone = train_on(1, {kind: Run(plan_of(Ranks(), "per_use", kind), NUM_STEPS) for kind in NEGATIVES})
    num_missed = 0
    for ranks in chosen:
        for row, far in rows_of(ranks, alone):
            missed = beyond(far)
            num_missed += bool(missed)
            print(_line(row, asked.markdown) + (f"  <- beyond the bounds: {missed}" if missed else ""), flush=True)
    names = [name for name in alone["micro_batch"].weights if is_key_bias(name)]
    print(f"\nkey biases: the rows of the keys in {', '.join(names)}; bound {LEARNING_RATE * NUM_STEPS:g}")
    return 1 if num_missed else 0


if __name__ == "__main__":
    sys.exit(main())
