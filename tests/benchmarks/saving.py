"""What a save costs the run: the stall of an asynchronous one beside the time of a synchronous one.

python -m tests.benchmarks.saving [--hidden-size 384] [--ranks 1]

The stall of a save is the longest gap between the ends of two steps, of those from it to the next, minus the median
one. Steps vary by themselves, the more the less quiet the machine is: so the median of several saves is said first,
then the worst. Prints ratios; fails nothing.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.helpers import VOCAB_SIZE, run_ranks, tiny_plan

SAVES = 7
STEPS_BETWEEN = 10


def plan_of(hidden_size: int, num_ranks: int, asynchronous: bool) -> Any:
    """A run whose states weigh something beside its steps."""
    layers = {"vision_layers": 3, "text_layers": 3, "fusion_layers": 3}
    return tiny_plan(
        model={"hidden_size": hidden_size, "num_heads": 8, **layers},
        train={"global_batch_size": 4 * num_ranks, "micro_batch_size": 4},
        checkpoint={"asynchronous": asynchronous, "keep_last": 1},
        invariants={"first_steps": 0},
    )


def times_of(hidden_size: int, num_ranks: int, asynchronous: bool, folder: str) -> tuple[list[float], list[float], int]:
    """Seconds of each step with whatever lies between it and the next, seconds within each save, bytes of one."""
    from mmtrain.checkpoint.changes import Changes
    from mmtrain.checkpoint.keeper import Keeper
    from mmtrain.checkpoint.manifest import Manifest
    from mmtrain.engine.build import build_engine, join
    from mmtrain.parallel.launch import read_launch
    from tests.helpers import global_batch_of

    plan = plan_of(hidden_size, num_ranks, asynchronous)
    place = join(plan, read_launch())
    engine = build_engine(plan, place, num_pieces=VOCAB_SIZE)
    here = Manifest(0, plan.model_dump(mode="json"), {}, tokenizer_sha256="", num_pieces=VOCAB_SIZE)
    keeper = Keeper(Path(folder), here, plan.checkpoint, Changes({}))
    batches = global_batch_of(0, plan, num_ranks, place.groups.coord.dp)
    gaps, saves = [], []
    keeper.resume(engine, Nowhere())
    for _ in range(3):
        engine.step(batches)
    for number in range(SAVES + 1):
        for step in range(STEPS_BETWEEN):
            started = perf_counter()
            engine.step(batches)
            keeper.attend()
            if step == 0:
                before = perf_counter()
                keeper.save(number + 1, engine, Nowhere())
                saves.append(perf_counter() - before)
            gaps.append(perf_counter() - started)
        keeper.finish()
    num_bytes = sum(values.numel() * values.element_size() for _, values in engine.kept())
    return gaps[STEPS_BETWEEN:], saves[1:], num_bytes


class Nowhere:
    """A stream that stands nowhere."""

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass


def measured(words: argparse.Namespace, *, asynchronous: bool) -> tuple[list[float], list[float], int]:
    """What the first rank found, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        given = (words.hidden_size, words.ranks, asynchronous, folder)
        return run_ranks(words.ranks, times_of, *given, timeout_seconds=1200)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hidden-size", type=int, default=384)
    parser.add_argument("--ranks", type=int, default=1)
    words = parser.parse_args()
    _, saves, _ = measured(words, asynchronous=False)
    synchronous = statistics.median(saves)
    print(f"synchronous save   {synchronous:8.3f} s (median of {SAVES})", flush=True)
    gaps, copies, num_bytes = measured(words, asynchronous=True)
    median = statistics.median(gaps)
    longest = [max(gaps[start : start + STEPS_BETWEEN]) for start in range(0, len(gaps), STEPS_BETWEEN)]
    stall, worst = statistics.median(longest) - median, max(longest) - median
    print(f"{num_bytes / 1e6:.0f} MB a checkpoint and rank, {words.ranks} rank(s)")
    print(f"asynchronous save  {stall:8.3f} s stall beyond the median step of {median:.3f} s; the worst {worst:.3f} s")
    print(f"                   {max(copies):8.3f} s of it at most within the call that copies")
    print(
        f"stall / synchronous save: {stall / synchronous:.1%}, worst {worst / synchronous:.1%}  (asked: at most 10 %)"
    )


if __name__ == "__main__":
    main()
