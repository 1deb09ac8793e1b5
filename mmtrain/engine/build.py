"""Put a run together on this rank: data, groups, model, objectives, engine."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from mmtrain.config.depth import Part
from mmtrain.config.load import ConfigError
from mmtrain.config.schema import RunConfig
from mmtrain.config.shapes import padded_vocab_size, sequence_unit
from mmtrain.data.heldout import HeldOut
from mmtrain.data.questions import Asking
from mmtrain.data.slot import LENGTH_STEP
from mmtrain.data.stream import Stream
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.engine.beginnings import begin_from_source
from mmtrain.engine.contract import Scorer
from mmtrain.engine.evaluation import Evaluation
from mmtrain.engine.frozen import freeze
from mmtrain.engine.parallel import ParallelEngine
from mmtrain.engine.passes import Passes, StraightPasses
from mmtrain.engine.pipeline import PipelinePasses
from mmtrain.engine.states import States
from mmtrain.engine.uncut import UncutStates
from mmtrain.engine.zero import ZeroStates
from mmtrain.model.chunks import Chunks, StageModel
from mmtrain.model.rows import Layout
from mmtrain.model.vlm import VisionLanguageModel
from mmtrain.model.weights import initialize, named_slices
from mmtrain.objectives.mixture import Mixture
from mmtrain.parallel.collectives import least_of
from mmtrain.parallel.cpu import answer_for_cuda
from mmtrain.parallel.device import device_of, precision_name, resolve_precision, settle, usable_bytes
from mmtrain.parallel.grid import Grid
from mmtrain.parallel.groups import Groups, start
from mmtrain.parallel.launch import Launch
from mmtrain.parallel.slices import Slice
from mmtrain.planner.memory import choose_gather, what_moves, with_gather
from mmtrain.planner.stages import stage_layers

LOG = logging.getLogger("mmtrain.engine")


@dataclass(frozen=True)
class Place:
    """Where this rank stands and what it computes on."""

    groups: Groups
    device: torch.device
    dtype: torch.dtype
    device_bytes: int  # that a rank may fill, of the rank that has the least


def open_stream(plan: RunConfig, launch: Launch, tokenizer: Tokenizer) -> Stream:
    """This rank's training stream; needs no other rank. DataError where the data cannot be used."""
    grid = Grid.over(launch.world_size, plan.parallel.tp, plan.parallel.pp)
    return Stream(
        plan.data,
        plan.model,
        plan.train,
        plan.mlm,
        seed=plan.seed,
        dp=grid.dp,
        dp_rank=grid.coord(launch.rank).dp,
        trim=trims_texts(plan),
        needs_images=grid.coord(launch.rank).pp == 0,
        tokenizer=tokenizer,
        prompt=plan.task.prompt,
        asking=Asking.of(plan.task),
    )


def open_heldout(plan: RunConfig, launch: Launch, tokenizer: Tokenizer) -> HeldOut | None:
    """The held-out split, None where the run has none. DataError where it cannot be used."""
    if not plan.data.heldout:
        return None
    grid = Grid.over(launch.world_size, plan.parallel.tp, plan.parallel.pp)
    heldout = HeldOut(
        plan.data,
        plan.model,
        plan.mlm,
        tokenizer,
        seed=plan.seed,
        num_pairs=plan.eval.num_pairs,
        needs_images=grid.coord(launch.rank).pp == 0,
        prompt=plan.task.prompt,
        asking=Asking.of(plan.task),
    )
    if plan.loss.itc and plan.task.name != "caption" and (num_further := heldout.num_further_captions):
        LOG.info(
            "data.heldout: its images have %d further captions in their .json, which are not retrieved: one caption a "
            "sample is; `mmdata build --apart` makes a sample of each",
            num_further,
        )
    return heldout


def join(plan: RunConfig, launch: Launch) -> Place:
    """Take this rank's device and join the others; every rank must call it."""
    device = device_of(launch.local_rank)
    settle(device)
    answer_for_cuda()
    dtype = resolve_precision(plan.precision, device)
    if plan.zero.grad_accumulation == "bf16" and dtype == torch.float32:
        raise ConfigError(
            ["zero.grad_accumulation is bf16, but precision=auto is fp32 on this device; set precision=bf16"]
        )
    groups = start(
        launch,
        tp=plan.parallel.tp,
        pp=plan.parallel.pp,
        on_gpu=device.type == "cuda",
        timeout_seconds=plan.parallel.timeout_seconds,
    )
    least = least_of(usable_bytes(device, launch.local_world_size), dist.group.WORLD, device)
    return Place(groups, device, dtype, least)


def trims_texts(plan: RunConfig) -> bool:
    """Whether texts may end before model.max_text_length: stages exchange packets of one shape, ranks share tokens."""
    return plan.parallel.pp == 1 and LENGTH_STEP % sequence_unit(plan.parallel) == 0


def build_model(plan: RunConfig, place: Place, num_pieces: int) -> tuple[StageModel, dict[str, Slice]]:
    """This stage's part of the model with its first weights, the same on every layout, and which slice each is."""
    vocab_size = padded_vocab_size(num_pieces)
    cut, parallel = stage_layers(plan, vocab_size), plan.parallel
    numbers = range(place.groups.coord.pp, parallel.pp * parallel.chunks_per_stage, parallel.pp)
    parts = [VisionLanguageModel(plan, vocab_size, Part.cut(plan.model, cut, number)) for number in numbers]
    model = parts[0] if len(parts) == 1 else Chunks(parts)
    slices = named_slices(model, place.groups.coord.tp, place.groups.grid.tp)
    initialize(model, slices, seed=plan.seed, shape=plan.model)
    freeze(plan, model)
    return model, slices


def build_evaluation(plan: RunConfig, place: Place, heldout: HeldOut | None) -> Evaluation | None:
    """How the run's held-out split is scored."""
    if heldout is None:
        return None
    layout = Layout.of(Mixture(plan.loss, plan.itc, place.groups.data, plan.lm).rows)
    size, num_pictures = plan.train.micro_batch_size, plan.eval.num_pictures
    return Evaluation(heldout, layout, place.groups, place.device, size, num_pictures, trim=trims_texts(plan))


def build_engine(
    plan: RunConfig,
    place: Place,
    *,
    num_pieces: int,
    evaluation: Scorer | None = None,
    holder: type[States] | None = None,
    received: Callable[[], int] = int,
) -> ParallelEngine:
    """The engine of `plan`, ready for its first step; `holder` of its states is found out unless given.

    `received` says which signal to end this rank has got, 0 for none.
    """
    plan = decide_gather(plan, place, num_pieces)
    if plan.finetune.frozen and place.groups.rank == 0:
        LOG.info("%s", what_moves(plan, padded_vocab_size(num_pieces)))
    model, slices = build_model(plan, place, num_pieces)
    begin_from_source(plan, model, slices, says_so=place.groups.rank == 0)
    states = (holder or holder_for(plan, place.groups))(plan, model, place.groups, place.device, place.dtype)
    return ParallelEngine(
        plan,
        states,
        build_passes(plan, place, states, model),
        Mixture(plan.loss, plan.itc, place.groups.data, plan.lm),
        place.groups,
        slices,
        device=place.device,
        vocab_size=padded_vocab_size(num_pieces),
        evaluation=evaluation,
        received=received,
    )


def decide_gather(plan: RunConfig, place: Place, num_pieces: int) -> RunConfig:
    """The same run with `zero.gather=auto` decided, alike on every rank, and said by the first."""
    grid, zero = place.groups.grid, plan.zero
    if zero.stage < 3 or zero.gather != "auto" or grid.dp == 1:
        return plan
    vocab_size, precision = padded_vocab_size(num_pieces), precision_name(place.dtype)
    choice = choose_gather(plan, grid.world_size, vocab_size, precision, place.device_bytes)
    if place.groups.rank == 0:
        LOG.info("%s", choice.reason)
    return with_gather(plan, choice.mode)


def holder_for(plan: RunConfig, groups: Groups) -> type[States]:
    """DeepSpeed's ZeRO, except where one data-parallel rank holds everything: it would only cost time."""
    if groups.grid.dp > 1:
        return ZeroStates
    if groups.rank == 0:
        LOG.info("one data-parallel rank holds all states: zero.stage=%d has nothing to cut", plan.zero.stage)
    return UncutStates


def build_passes(plan: RunConfig, place: Place, stage: Callable[..., Any], model: StageModel) -> Passes:
    """How micro-batches go through `stage`: the states around the model, or to infer only the model itself."""
    if plan.parallel.pp == 1:
        return StraightPasses(stage, place.device)
    return PipelinePasses(stage, model, plan.parallel, place.groups.pipe, device=place.device, dtype=place.dtype)
