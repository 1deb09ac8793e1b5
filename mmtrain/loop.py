"""The train loop: verbs only. It knows engines by their contract, and no rank, device or axis."""

import logging
from time import perf_counter
from typing import Protocol

from mmtrain.config.schema import RunConfig
from mmtrain.data.stream import Stream
from mmtrain.engine.contract import Engine
from mmtrain.monitor.meters import Meters
from mmtrain.monitor.oversight import Oversight
from mmtrain.parallel.launch import Preempted
from mmtrain.records import EvalReport

LOG = logging.getLogger("mmtrain.loop")


class Keeper(Protocol):
    """What saves a run, and goes on from what it saved."""

    save_seconds: float  # that the last save took, until it stood

    def resume(self, engine: Engine, stream: Stream) -> int:
        """Take up the newest checkpoint, if there is one; how many steps are done."""
        ...

    def save(self, step: int, engine: Engine, stream: Stream) -> None:
        """Keep everything that must survive a crash."""
        ...

    def attend(self) -> None:
        """Look after a save that is still being written."""
        ...

    def finish(self) -> None:
        """Wait until it is."""
        ...

    def can_go_back(self) -> bool:
        """Whether there is a checkpoint to take up, once the last is written."""
        ...


def train(
    plan: RunConfig, engine: Engine, stream: Stream, keeper: Keeper, meters: Meters, *, oversight: Oversight
) -> EvalReport | None:
    """Go on to `plan.train.num_steps` optimizer steps; the scores after the last, if there is a held-out split.

    Preempted, once it has saved, when a signal asks to end.
    """

    def take_up() -> int:
        with oversight.over("the loading of a checkpoint"):
            step = keeper.resume(engine, stream)
        oversight.health.resume(meters.resume(step))
        return step

    def save(*, waits: bool) -> None:
        with oversight.over("a save"):
            keeper.save(step, engine, stream)
            if waits:
                keeper.finish()
        oversight.status.running(step, at_once=True)

    def score() -> EvalReport:
        with oversight.over("the held-out scores"):
            report = engine.evaluate()
        meters.record_evaluation(step, report)
        return report

    step, num_steps = take_up(), plan.train.num_steps
    if step >= num_steps:
        LOG.info("nothing is left to train: the run stands after step %d, train.num_steps is %d", step, num_steps)
    while step < num_steps:
        started = perf_counter()
        with oversight.over(f"step {step + 1}"):
            report = engine.step(stream.take(stream.num_micro_batches))
        step += 1
        keeper.attend()
        oversight.health.look_at_save(keeper.save_seconds)
        meters.record(step, report, step_seconds=perf_counter() - started, data_wait_seconds=stream.wait_seconds)
        if oversight.stepped(step, report, stream) and keeper.can_go_back():
            leapt, step = stream.last_places(), take_up()
            stream.leave_out(leapt)
        elif report.signal:
            save(waits=True)
            raise Preempted(report.signal, step)
        elif step < num_steps:
            if due(step, plan.eval.every):
                score()
            if due(step, plan.checkpoint.save_every):
                save(waits=False)
    stream.check_at_end(engine.summed)
    save(waits=True)
    return score() if plan.data.heldout else None


def due(step: int, every: int) -> bool:
    """Whether something that happens every `every` steps happens after `step`; 0 is never."""
    return every > 0 and step % every == 0
