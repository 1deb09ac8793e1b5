"""The train loop: verbs only. It knows engines by their contract, and no rank, device or axis."""

from time import perf_counter
from typing import Protocol

from mmtrain.config.schema import RunConfig
from mmtrain.data.stream import Stream
from mmtrain.engine.contract import Engine
from mmtrain.monitor.health import Health
from mmtrain.monitor.meters import Meters
from mmtrain.monitor.status import RunStatus
from mmtrain.parallel.launch import Preempted
from mmtrain.records import EvalReport


class Keeper(Protocol):
    """What saves a run, and goes on from what it saved."""

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


def train(
    plan: RunConfig,
    engine: Engine,
    stream: Stream,
    keeper: Keeper,
    meters: Meters,
    *,
    status: RunStatus,
    health: Health,
) -> EvalReport | None:
    """Go on to `plan.train.num_steps` optimizer steps; the scores after the last, if there is a held-out split.

    Preempted, once it has saved, when a signal asks to end.
    """
    step, num_steps = keeper.resume(engine, stream), plan.train.num_steps
    meters.resume(step)
    while step < num_steps:
        started = perf_counter()
        report = engine.step(stream.take(stream.num_micro_batches))
        step += 1
        keeper.attend()
        meters.record(step, report, step_seconds=perf_counter() - started, data_wait_seconds=stream.wait_seconds)
        status.running(step)
        health.look(step, report, stream)
        if report.signal:
            keeper.save(step, engine, stream)
            keeper.finish()
            raise Preempted(report.signal, step)
        if due(step, plan.eval.every) and step < num_steps:
            meters.record_evaluation(step, engine.evaluate())
        if due(step, plan.checkpoint.save_every) and step < num_steps:
            keeper.save(step, engine, stream)
            status.running(step, at_once=True)
    keeper.save(step, engine, stream)
    keeper.finish()
    if not plan.data.heldout:
        return None
    report = engine.evaluate()
    meters.record_evaluation(step, report)
    return report


def due(step: int, every: int) -> bool:
    """Whether something that happens every `every` steps happens after `step`; 0 is never."""
    return every > 0 and step % every == 0
