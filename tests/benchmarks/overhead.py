"""What the engine costs: steps a second of one process under it, against the same model in a plain PyTorch loop.

    python -m tests.benchmarks.overhead

All train the same rows with the same attention, precision (fp32), clipping and fused AdamW, in turns of one run, so
that the machine's moods meet all alike; the median of the rounds' ratios counts. `engine` is what a run of one process
gets: one data-parallel rank has nothing to cut and holds its states whole. `zero` forces DeepSpeed ZeRO-3 upon it.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from mmtrain.config.schema import RunConfig
from mmtrain.engine.build import Place, build_engine, build_model, join
from mmtrain.engine.optim import build_optimizer, learning_rate_at
from mmtrain.engine.zero import ZeroStates
from mmtrain.model.rows import Layout, count_read, plan_rows
from mmtrain.objectives.contract import Totals
from mmtrain.objectives.mixture import Mixture
from mmtrain.parallel.launch import hush_expected_warnings, read_launch
from mmtrain.records import Batch
from tests.helpers import VOCAB_SIZE, made_batch, tiny_plan

BATCH, NUM_ROUNDS, STEPS_PER_ROUND = 8, 9, 4
TEXT = {"text_layers": 2, "fusion_layers": 2, "embedding_size": 128, "image_size": 64, "max_text_length": 24}
MODELS = {
    "tiny": {**TEXT, "hidden_size": 192, "num_heads": 4, "vision_layers": 4, "patch_size": 16},
    "384 wide": {**TEXT, "hidden_size": 384, "num_heads": 6, "vision_layers": 6, "patch_size": 8},
}


def plain_step(plan: RunConfig, place: Place) -> Callable[[Batch], None]:
    """One optimizer step of autograd and AdamW, and nothing else."""
    model, _ = build_model(plan, place, VOCAB_SIZE)
    mixture = Mixture(plan.loss, plan.itc, place.groups.data)
    layout, optimizer = Layout.of(mixture.rows), build_optimizer(model.named_parameters(), plan.train)
    done = 0

    def step(batch: Batch) -> None:
        nonlocal done
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(done, plan.train)
        totals = Totals(**{name: float(count) for name, count in count_read(batch, plan.itm.pool_size).items()})
        losses = mixture.losses(model(plan_rows(batch, layout)), batch, totals)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.train.gradient_clipping)
        optimizer.step()
        optimizer.zero_grad()
        done += 1

    return step


def seconds_of(step: Callable[[Batch], object], batches: list[Batch]) -> float:
    """Mean seconds of a step over `batches`."""
    started = time.perf_counter()
    for batch in batches:
        step(batch)
    return (time.perf_counter() - started) / len(batches)


def compare(plan: RunConfig, place: Place) -> dict[str, tuple[float, float]]:
    """Of each loop: steps a second, and its time over the plain loop's."""
    shape = {"image_size": plan.model.image_size, "max_text_length": plan.model.max_text_length}
    batches = [made_batch(range(first, first + BATCH), **shape) for first in range(0, STEPS_PER_ROUND * BATCH, BATCH)]
    engine = build_engine(plan, place, num_pieces=VOCAB_SIZE)
    forced = build_engine(plan, place, num_pieces=VOCAB_SIZE, holder=ZeroStates)
    loops = {
        "plain": plain_step(plan, place),
        "engine": lambda batch: engine.step([batch]),
        "zero": lambda batch: forced.step([batch]),
    }
    for step in loops.values():
        seconds_of(step, batches)
    rounds = [{loop: seconds_of(step, batches) for loop, step in loops.items()} for _ in range(NUM_ROUNDS)]
    return {
        loop: (
            1 / statistics.median(one[loop] for one in rounds),
            statistics.median(one[loop] / one["plain"] for one in rounds),
        )
        for loop in loops
    }


def main() -> int:
    """Print steps a second of each loop and its time over the plain loop's."""
    hush_expected_warnings()
    place = None
    for name, model in MODELS.items():
        plan = tiny_plan(
            model=model,
            train={"global_batch_size": BATCH, "micro_batch_size": BATCH, "num_steps": 1000, "learning_rate": 1e-4},
            invariants={"first_steps": 0},
        )
        place = place or join(plan, read_launch())
        for loop, (steps_per_second, ratio) in compare(plan, place).items():
            print(f"{name:<9} {loop:<7} {steps_per_second:6.2f} steps/s   {ratio:.3f} of the plain loop's time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
