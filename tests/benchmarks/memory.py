"""Peak bytes of a rank while it trains, measured, by how ZeRO holds the states: per_step, per_use, ZeRO-1.

    python -m tests.benchmarks.memory               a table on the terminal; 4 processes at a time
    python -m tests.benchmarks.memory --markdown    the table of the README

One model 512 wide on dp4, fp32, two micro-batches of 2 samples a step, so that states and not activations weigh.
Bytes are what was resident more than before the model was made, on the rank that held most, also in units of the
weights' bytes: after a step, and at the peak of the third step, beside the peak that `mmtrain plan` foretells.
"""

import argparse
import sys
from typing import Any

from mmtrain.config.shapes import padded_vocab_size
from mmtrain.planner.memory import peak_bytes as foretold_bytes
from tests.benchmarks.peak import give_back_at_once, peak_bytes, settled_bytes
from tests.comparison import Ranks
from tests.helpers import VOCAB_SIZE, global_batch_of, run_ranks, tiny_plan

HOLDERS = {"per_step": (3, "per_step"), "per_use": (3, "per_use"), "ZeRO-1": (1, "auto")}
RANKS = Ranks(dp=4)
COLUMNS = ("weights", "between steps", "peak of a step", "foretold peak")
MODEL = {
    "hidden_size": 512,
    "num_heads": 8,
    "vision_layers": 12,
    "text_layers": 6,
    "fusion_layers": 6,
    "image_size": 32,
    "patch_size": 8,
    "max_text_length": 12,
}


def plan_of(stage: int, gather: str) -> Any:
    """The run of one row."""
    train = {"global_batch_size": 4 * RANKS.dp, "micro_batch_size": 2}
    zero = {"stage": stage, "gather": gather}
    return tiny_plan(parallel=RANKS.parallel, zero=zero, model=MODEL, train=train, itm={"pool_size": 2})


def bytes_on_a_rank(plan: Any) -> tuple[int, int, int]:
    """Bytes of the weights; extra bytes resident between steps, and at the peak of one."""
    from mmtrain.engine.build import build_engine, join
    from mmtrain.parallel.launch import read_launch

    place = join(plan, read_launch())
    small = tiny_plan(zero={"stage": 3}, train={"micro_batch_size": 4})
    warm = build_engine(small, place, num_pieces=VOCAB_SIZE)  # what libraries keep for good
    warm.step(global_batch_of(0, small, RANKS.dp, place.groups.coord.dp))
    before = settled_bytes()
    engine = build_engine(plan, place, num_pieces=VOCAB_SIZE)
    num_params = sum(getattr(param, "ds_numel", param.numel()) for param in engine.states.model.parameters())
    batches = [global_batch_of(step, plan, RANKS.dp, place.groups.coord.dp) for step in range(3)]
    for step in range(2):
        engine.step(batches[step])
    between = settled_bytes()
    peak = peak_bytes(lambda: engine.step(batches[2]))
    return 4 * num_params, between - before, peak - before


def main() -> int:
    """Measure each in processes of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown")
    asked = parser.parse_args()
    give_back_at_once()

    def show(cells: tuple[str, ...]) -> None:
        print(f"| {' | '.join(cells)} |" if asked.markdown else "  ".join(cell.ljust(24) for cell in cells), flush=True)

    show(COLUMNS)
    if asked.markdown:
        show(("---",) * len(COLUMNS))
    for name, how in HOLDERS.items():
        plan = plan_of(*how)
        found = run_ranks(RANKS.world_size, bytes_on_a_rank, plan)
        weights, between, peak = (max(of) for of in zip(*found, strict=True))
        foretold = foretold_bytes(plan, RANKS.world_size, padded_vocab_size(VOCAB_SIZE), "fp32")
        show((name, *(f"{size / 2**20:.0f} MiB ({size / weights:.1f} x)" for size in (between, peak, foretold))))
    print(
        f"\nweights: {weights / 2**20:.0f} MiB in float32; Adam's two moments are twice that, masters are the weights"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
