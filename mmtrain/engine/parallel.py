"""The engine: one optimizer step over micro-batches, on however many data-, tensor- and pipeline-parallel ranks."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from mmtrain.config.schema import RunConfig
from mmtrain.engine.contract import Scorer
from mmtrain.engine.guard import Guard
from mmtrain.engine.invariants import Invariants
from mmtrain.engine.optim import Part, learning_rate_at
from mmtrain.engine.passes import Losses, Passes
from mmtrain.engine.states import States
from mmtrain.engine.work import tokens_and_flops
from mmtrain.model.rows import Layout, count_read
from mmtrain.objectives.contract import Totals
from mmtrain.objectives.mixture import Mixture
from mmtrain.parallel.collectives import sum_floats
from mmtrain.parallel.groups import Groups
from mmtrain.parallel.slices import Slice
from mmtrain.records import Batch, EvalReport, Features, StepReport


class ParallelEngine:
    """A stage of the model, the states behind it, and how micro-batches pass through it."""

    def __init__(
        self,
        plan: RunConfig,
        states: States,
        passes: Passes,
        mixture: Mixture,
        groups: Groups,
        slices: dict[str, Slice],
        *,
        device: torch.device,
        vocab_size: int,
        evaluation: Scorer | None,
        received: Callable[[], int] = int,
    ) -> None:
        self.plan, self.states, self.passes, self.mixture = plan, states, passes, mixture
        self.groups, self.slices, self.device = groups, slices, device
        self.layout = Layout.of(mixture.rows)
        self.vocab_size, self.evaluation = vocab_size, evaluation
        self.invariants, self.guard = Invariants(plan, groups), Guard(device, received)
        self.num_steps_done = self.num_updates = 0
        self._until: Callable[[], None] | None = None  # what has to return before the weights move

    def step(self, micro_batches: Sequence[Batch]) -> StepReport:
        batches = self.passes.agreed(micro_batches)
        return self.update(batches, self.accumulate(batches))

    def accumulate(self, batches: list[Batch]) -> list[Losses]:
        """The first half of a step: the losses of each micro-batch, and their gradients summed and reduced."""
        totals = self._agree_on_totals(batches)
        self.states.model.train()
        with self.states.during_passes():
            if self.mixture.needs_first_pass:
                self._contrast_whole_batch(batches, totals)
            return self._train(batches, totals)

    def update(self, batches: list[Batch], found: list[Losses]) -> StepReport:
        """The second half: look at what must agree, clip, and move the weights, or leave them where that is no number.

        The learning rate follows the moves, not the steps: one that is skipped changes nothing of what comes.
        """
        verdict = self.guard.agree(self.states.gradients(), (losses["loss"] for losses in found))
        learning_rate = learning_rate_at(self.num_updates, self.plan.train)
        grad_norm = math.nan
        if not verdict.is_finite:
            self.states.drop()
        else:
            if self.invariants.are_due(self.num_steps_done):
                self.invariants.check(self.num_steps_done, self.states.model)
            self._keep_held()
            grad_norm = self.states.move(learning_rate)
            self.num_updates += 1
        report = self._report(batches, found, grad_norm, learning_rate)
        self.num_steps_done += 1  # only now: a rank that is lost in the report is lost in this step
        if not verdict.is_finite:
            report = replace(report, is_skipped=True, bad_places=self.guard.bad_places(batches, found))
        return replace(report, signal=verdict.signal)

    def evaluate(self) -> EvalReport:
        if self.evaluation is None:
            raise RuntimeError("this engine was built without a held-out split")
        self.states.model.eval()
        return self.evaluation.run(self.passes)

    def summed(self, values: list[float]) -> list[float]:
        return sum_floats(values, self.groups.data, self.device)

    def held(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        for part in self.states.parts():
            yield from self._rectangles(part)

    def kept(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        for part in self.states.parts():
            if not self._is_replica(part.name):
                yield from self._rectangles(part)

    def hold(self, until: Callable[[], None]) -> None:
        self._until = until

    def _keep_held(self) -> None:
        if self._until is not None:
            self._until()
            self._until = None

    def _rectangles(self, part: Part) -> Iterator[tuple[Slice, torch.Tensor]]:
        """A part, which is a flat range of this rank's slice, as rectangles of the whole tensor."""
        place, stop = self.slices[part.name].of(part.kind), part.start + part.values.numel()
        pieces = list(place.rectangles(part.start, stop))
        values = part.values.split([math.prod(piece.shape) for piece in pieces])
        yield from ((piece, value.view(piece.shape)) for piece, value in zip(pieces, values, strict=True))

    def _is_replica(self, name: str) -> bool:
        """Whether a tensor-parallel neighbour with a lower rank holds the same elements of a weight."""
        place = self.slices[name]
        return self.groups.coord.tp > 0 and place.shape == place.global_shape

    def progress(self) -> dict[str, int]:
        return {"num_steps_done": self.num_steps_done, "num_updates": self.states.count_updates()}

    def take_up(self, progress: dict[str, int]) -> None:
        self.num_steps_done, self.num_updates = progress["num_steps_done"], progress["num_updates"]
        self.states.take_up(progress["num_updates"])

    def gradients(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        """The global batch's gradient before it is clipped, between the halves of a step; each part from one rank."""
        dp, dp_rank = self.groups.grid.dp, self.groups.coord.dp
        for number, (name, tensor) in enumerate(self.states.whole_gradients()):
            if number % dp == dp_rank and not self._is_replica(name):
                yield self.slices[name], tensor.cpu()

    def _train(self, batches: list[Batch], totals: Totals) -> list[Losses]:
        def loss_of(features: Features, batch: Batch) -> Losses:
            losses = self.mixture.losses(features, batch, totals)
            # Gradients are averaged over the data-parallel ranks; the losses here are shares that add up.
            return losses | {
                "shares": losses["loss"].detach(),
                "loss": losses["loss"] * self.groups.grid.dp,
                "temperature": features.get("temperature", torch.full((1,), torch.nan)).detach(),
            }

        return self.passes.train(batches, self.layout, loss_of)

    def _contrast_whole_batch(self, batches: list[Batch], totals: Totals) -> None:
        """The first of two passes: features of all micro-batches, no gradients, no fusion."""
        found = list(self.passes.infer(batches, Layout.of({"clean"})))
        if self.passes.sees_features:
            self.mixture.take_first_pass(found, totals)

    def _agree_on_totals(self, batches: list[Batch]) -> Totals:
        # Without matching there are no pools, and their size need not divide the micro-batch.
        pool_size = self.plan.itm.pool_size if self.plan.loss.of_itm > 0 else 1
        counts = [count_read(batch, pool_size) for batch in batches]
        names = list(counts[0])
        own = [float(sum(count[name] for count in counts)) for name in names]
        return Totals(**dict(zip(names, sum_floats(own, self.groups.data, self.device), strict=True)))

    def _report(self, batches: list[Batch], found: list[Losses], grad_norm: float, learning_rate: float) -> StepReport:
        names = self.mixture.loss_names
        sums = [sum(float(losses["shares" if name == "loss" else name]) for losses in found) for name in names]
        temperature = float(found[-1]["temperature"]) / self.groups.grid.dp if found else 0.0
        num_tokens, flops = tokens_and_flops(self.plan, self.layout, self.vocab_size, batches)
        # Only the last stage saw losses; every stage counts the same work.
        everywhere = sum_floats([*sums, temperature], self.groups.data, self.device)
        *losses, temperature = sum_floats(everywhere, self.groups.pipe, self.device)
        num_tokens, flops = sum_floats([float(num_tokens), flops], self.groups.data, self.device)
        return StepReport(
            losses=dict(zip(names, losses, strict=True)),
            grad_norm=grad_norm,
            learning_rate=learning_rate,
            temperature=temperature,
            num_samples=self.plan.train.global_batch_size,
            num_tokens=int(num_tokens),
            flops=flops,
        )
