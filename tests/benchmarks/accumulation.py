"""How exact the gradient of many micro-batches is in bf16, and what it costs: beside the same gradients summed in fp32.

    python -m tests.benchmarks.accumulation               a table on the terminal; 2 processes
    python -m tests.benchmarks.accumulation --markdown    the table of the README

Each micro-batch's gradient is computed in bf16 alike; what differs is how they add up and travel. The error is the
length of the difference by the length of the gradient, over all parameters; dp2, 16 micro-batches.
"""

import argparse
import sys
from typing import Any

from tests.comparison import Ranks
from tests.helpers import VOCAB_SIZE, global_batch_of, run_ranks, tiny_plan

RANKS, NUM_BATCHES, MICRO_BATCH = Ranks(dp=2), 16, 4
WAYS = tuple((gather, sums) for gather in ("per_step", "per_use") for sums in ("fp32", "bf16"))
COLUMNS = ("zero.gather", "zero.grad_accumulation", "error", "travels as", "bytes reduced", "bytes of sums")


def plan_of(gather: str, sums: str, num_batches: int = NUM_BATCHES) -> Any:
    """The run of one row."""
    return tiny_plan(
        precision="bf16",
        parallel=RANKS.parallel,
        zero={"stage": 3, "gather": gather, "grad_accumulation": sums},
        train={"global_batch_size": num_batches * MICRO_BATCH * RANKS.dp, "micro_batch_size": MICRO_BATCH},
    )


def found_on_a_rank(num_batches: int) -> dict[tuple[str, str], dict[str, Any]]:
    """For each way the error, the type that travelled and the bytes, per parameter of the stage."""
    import torch
    import torch.distributed as dist

    from mmtrain.engine.build import build_engine, join
    from mmtrain.engine.uncut import UncutStates
    from mmtrain.parallel.launch import read_launch
    from tests.traffic import REDUCED, counted

    place = join(plan_of(*WAYS[0], num_batches), read_launch())
    dp, dp_rank = place.groups.grid.dp, place.groups.coord.dp

    def engine_of(gather: str, sums: str, **holder: Any) -> Any:
        return build_engine(plan_of(gather, sums, num_batches), place, num_pieces=VOCAB_SIZE, **holder)

    batches = global_batch_of(0, plan_of(*WAYS[0], num_batches), dp, dp_rank)
    alone = engine_of("per_step", "fp32", holder=UncutStates)  # each rank adds up its own in fp32
    alone.accumulate(batches)
    wanted = dict(alone.states.whole_gradients())
    for gradient in wanted.values():
        dist.all_reduce(gradient, group=place.groups.data)
        gradient /= dp
    length = torch.cat([gradient.flatten() for gradient in wanted.values()]).norm()
    found = {}
    for way in WAYS:
        engine = engine_of(*way)
        with counted(place.groups) as traffic:
            engine.accumulate(batches)
            peak = sum(gradient.element_size() * gradient.numel() for gradient in engine.states.gradients())
        apart = [(gradient - wanted[name]).flatten() for name, gradient in engine.states.whole_gradients()]
        reduced = {
            kind.dtype: count
            for kind, count in traffic.moved.items()
            if (kind.group, kind.asker) == ("data", "deepspeed") and kind.collective in REDUCED
        }
        num_params = sum(part.numel() for part in apart)
        # per_step adds up whole gradients on every rank, per_use only this rank's part of what was reduced.
        whole = num_params * (4 if way[1] == "fp32" else 2)
        found[way] = {
            "error": float(torch.cat(apart).norm() / length),
            "dtypes": {str(dtype).removeprefix("torch.") for dtype in reduced},
            "bytes_reduced": sum(dtype.itemsize * count for dtype, count in reduced.items()) / num_params,
            "bytes_of_sums": (whole if way[0] == "per_step" else peak) / num_params,
        }
    return found


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown")
    asked = parser.parse_args()
    found = run_ranks(RANKS.world_size, found_on_a_rank, NUM_BATCHES)[0]
    rows = [COLUMNS, *([("---",) * len(COLUMNS)] if asked.markdown else [])]
    for way, of_way in found.items():
        measured = (f"{of_way['bytes_reduced']:.1f} per parameter", f"{of_way['bytes_of_sums']:.1f} per parameter")
        rows.append((*way, f"{of_way['error']:.1e}", " ".join(sorted(of_way["dtypes"])), *measured))
    for row in rows:
        print(f"| {' | '.join(row)} |" if asked.markdown else "  ".join(cell.ljust(22) for cell in row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
