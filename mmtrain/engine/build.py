"""Put a run together on this rank: groups, model, objectives, engine."""

import torch

from mmtrain.config.schema import RunConfig
from mmtrain.engine.evaluation import Evaluation
from mmtrain.engine.zero import ZeroEngine
from mmtrain.model.vlm import VisionLanguageModel
from mmtrain.model.weights import initialize, named_slices
from mmtrain.objectives.mixture import Mixture
from mmtrain.parallel.cpu import answer_for_cuda
from mmtrain.parallel.device import device_of, resolve_precision, settle
from mmtrain.parallel.groups import Groups, Launch, start

VOCAB_MULTIPLE = 128  # Shoeybi et al. 2019 pad to it; the padding is the same for every layout, or losses would differ


def padded_vocab_size(num_pieces: int, multiple: int = VOCAB_MULTIPLE) -> int:
    """Rows of the embedding and of the vocabulary head for a tokenizer of `num_pieces`."""
    return -(-num_pieces // multiple) * multiple


def join(plan: RunConfig, launch: Launch) -> tuple[Groups, torch.device]:
    """Take this rank's device and join the others; every rank must call it."""
    device = device_of(launch.local_rank)
    settle(device, cpu_threads=1)
    answer_for_cuda()
    groups = start(launch, tp=plan.parallel.tp, pp=plan.parallel.pp, on_gpu=device.type == "cuda")
    return groups, device


def build_engine(
    plan: RunConfig, groups: Groups, device: torch.device, *, num_pieces: int, evaluation: Evaluation | None = None
) -> ZeroEngine:
    """The engine of `plan` with its first weights, which are the same on every layout."""
    vocab_size = padded_vocab_size(num_pieces)
    model = VisionLanguageModel(plan, vocab_size)
    slices = named_slices(model, groups.coord.tp, groups.grid.tp)
    initialize(model, slices, seed=plan.seed, std=plan.model.init_std)
    return ZeroEngine(
        plan,
        model,
        Mixture(plan.loss, groups.data),
        groups,
        slices,
        device=device,
        dtype=resolve_precision(plan.precision, device),
        vocab_size=vocab_size,
        evaluation=evaluation,
    )
