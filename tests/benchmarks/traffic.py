"""What ZeRO moves for one optimizer step, counted: gathered and reduced, in units of the stage's parameters.

    python -m tests.benchmarks.traffic               a table on the terminal; 4 processes
    python -m tests.benchmarks.traffic --markdown    the table of the README
    python -m tests.benchmarks.traffic --kinds       also every collective by group, asker, kind and type, on rank 0

Elements of whole tensors, on the rank that moved most; dp2-pp2, where `global_batch` runs a first pass over all
micro-batches. Exit code 1 if `per_step` moves more than 1.05 of either at any step after the first.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from tests.comparison import Ranks
from tests.helpers import run_ranks, tiny_plan
from tests.traffic import Traffic, moved_on_a_rank

RANKS, MICRO_BATCH, NUM_STEPS = Ranks(dp=2, pp=2), 4, 3
MICRO_BATCHES = (2, 8, 16)
BOUND = 1.05
HOLDERS = {"per_step": (3, "per_step"), "per_use": (3, "per_use"), "ZeRO-1": (1, "auto")}
COLUMNS = ("weights", "itc.negatives", "micro-batches", "first step", "gathered", "reduced")


def plan_of(stage: int, gather: str, negatives: str, num_batches: int) -> Any:
    """A run of `num_batches` micro-batches a step."""
    return tiny_plan(
        parallel=RANKS.parallel,
        zero={"stage": stage, "gather": gather},
        itc={"negatives": negatives},
        train={"global_batch_size": num_batches * MICRO_BATCH * RANKS.dp, "micro_batch_size": MICRO_BATCH},
    )


def _rows(found: list[dict[Any, list[tuple[float, float, Traffic]]]]) -> list[tuple[list[str], bool]]:
    rows = []
    for key in found[0]:
        gathered, reduced = (
            [max(of[key][step][which] for of in found) for step in range(NUM_STEPS)] for which in (0, 1)
        )
        later = max(gathered[1:]), max(reduced[1:])
        first = f"{gathered[0]:.2f} / {reduced[0]:.2f}"
        keeps = key[0] != "per_step" or max(later) <= BOUND
        rows.append(([key[0], key[1], str(key[2]), first, *(f"{value:.2f}" for value in later)], keeps))
    return rows


def _line(cells: Sequence[str], markdown: bool) -> str:
    return f"| {' | '.join(cells)} |" if markdown else "  ".join(cell.ljust(14) for cell in cells)


def main() -> int:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown")
    parser.add_argument("--kinds", action="store_true", help="print every kind of collective of the last step")
    asked = parser.parse_args()
    plans = {
        (holder, negatives, num_batches): plan_of(*HOLDERS[holder], negatives, num_batches)
        for holder in HOLDERS
        for negatives in ("micro_batch", "global_batch")
        for num_batches in MICRO_BATCHES
    }
    found = run_ranks(RANKS.world_size, moved_on_a_rank, plans, NUM_STEPS)
    print(_line(COLUMNS, asked.markdown))
    if asked.markdown:
        print(_line(["---"] * len(COLUMNS), True))
    rows = _rows(found)
    for row, keeps in rows:
        print(_line(row, asked.markdown) + ("" if keeps else f"  <- more than {BOUND}"))
    if asked.kinds:
        for key, steps in found[0].items():
            print(f"\n{key}, rank 0, elements")
            for kind, count in sorted(steps[-1][2].moved.items(), key=str):
                print(f"  {kind.group:7} {kind.asker:10} {kind.collective:15} {str(kind.dtype):15} {count}")
    return 0 if all(keeps for _, keeps in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
