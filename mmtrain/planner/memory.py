"""What a rank holds while it trains, in bytes: an estimate by formula, for the table of `mmtrain plan` and for `auto`.

States are counted as the engine and DeepSpeed keep them (Rajbhandari et al. 2020, section 5): with P parameters of a
stage's tensor-parallel slice and dp ranks, weights P in the run's type, float32 masters and two moments of P / dp.
Activations after Korthikanti et al. 2022, section 4, without dropout and with fused attention, which keeps no scores.
Left out: what kernels borrow, fragments of the allocator, the features of the contrastive loss, and data.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from mmtrain.config.depth import Part
from mmtrain.config.schema import ModelConfig, RunConfig
from mmtrain.config.shapes import (
    data_parallel_size,
    inner_width,
    num_image_tokens,
    num_micro_batches,
    sequence_unit,
    stack_widths,
)
from mmtrain.planner.flops import num_fusion_rows, num_text_rows
from mmtrain.planner.parameters import largest_use, moving_parameters, stage_parameters, whole_parameters
from mmtrain.planner.stages import stage_layers

FLOAT32 = 4  # bytes
NUM_MOMENTS = 2  # that AdamW keeps of each element
TYPE_BYTES = {"fp32": 4, "bf16": 2}
PREFETCHED = 2**24  # elements that DeepSpeed may gather ahead of their use; the engine tells it so
REDUCED_TOGETHER = 2**24  # elements of the buffer in which it puts gradients together
USABLE_SHARE = 0.9  # of a device's memory; the rest goes to what the estimate leaves out


@dataclass(frozen=True)
class RankBytes:
    """Bytes of one rank of one pipeline stage at the peak of a step."""

    weights: int  # as they stay between steps
    gathered: int  # what ZeRO-3 brings together for use beside them
    gradients: int
    optimizer: int  # float32 masters and two moments
    buffers: int  # in which gradients are put together to be reduced
    activations: int
    packets: int  # what came in from the stage before and goes out to the next

    @property
    def total(self) -> int:
        """All of it."""
        return sum(asdict(self).values())

    @property
    def states(self) -> int:
        """Without activations and packets."""
        return self.total - self.activations - self.packets


@dataclass(frozen=True)
class GatherChoice:
    """How `zero.gather` was decided, in a sentence for the log."""

    mode: str
    reason: str


def stage_bytes(config: RunConfig, world_size: int, vocab_size: int, precision: str) -> list[RankBytes]:
    """One rank of each pipeline stage; `precision` is fp32 or bf16, `vocab_size` the padded one, and gather decided."""
    type_bytes, num_batches = TYPE_BYTES[precision], num_micro_batches(config, world_size)
    return [
        _sum_of(
            _rank_bytes(config, part, world_size, vocab_size, type_bytes, min(num_batches, in_flight(config, stage)))
            for part in parts
        )
        for stage, parts in enumerate(stage_parts(config, vocab_size))
    ]


def in_flight(config: RunConfig, stage: int) -> int:
    """Micro-batches that a part of that stage keeps activations of, at most (Narayanan et al. 2021, section 2.2)."""
    pp, chunks = config.parallel.pp, config.parallel.chunks_per_stage
    if chunks == 1:
        return pp - stage
    return -(-(2 * (pp - stage - 1) + (chunks - 1) * pp + 1) // chunks)


def stage_parts(config: RunConfig, vocab_size: int) -> list[tuple[Part, ...]]:
    """The parts of the depth that each pipeline stage holds: one, or with the interleaved schedule several."""
    cut, pp = stage_layers(config, vocab_size), config.parallel.pp
    parts = [Part.cut(config.model, cut, number) for number in range(len(cut))]
    return [tuple(parts[stage::pp]) for stage in range(pp)]


def _sum_of(parts: Iterable[RankBytes]) -> RankBytes:
    """Of one rank's parts together, which reduce through the same buffers."""
    counted = [asdict(part) for part in parts]
    return RankBytes(
        **{name: (max if name == "buffers" else sum)(part[name] for part in counted) for name in counted[0]}
    )


def peak_bytes(config: RunConfig, world_size: int, vocab_size: int, precision: str) -> int:
    """The fullest rank's."""
    return max(held.total for held in stage_bytes(config, world_size, vocab_size, precision))


def choose_gather(
    config: RunConfig, world_size: int, vocab_size: int, precision: str, device_bytes: int
) -> GatherChoice:
    """`zero.gather`, `auto` decided: per_use with one stage, else per_step if the fullest rank fits the device.

    Pure, so that every rank decides alike where all bring the same `device_bytes`.
    """
    if config.zero.gather != "auto":
        return GatherChoice(config.zero.gather, f"zero.gather={config.zero.gather}, as configured")
    if config.parallel.pp == 1:
        return GatherChoice("per_use", "zero.gather=auto is per_use: one pipeline stage uses each weight in one go")
    needed = peak_bytes(with_gather(config, "per_step"), world_size, vocab_size, precision)
    usable = int(USABLE_SHARE * device_bytes)
    mode, verdict = ("per_step", "fits") if needed <= usable else ("per_use", "does not fit")
    return GatherChoice(
        mode,
        f"zero.gather=auto is {mode}: per_step is estimated at {in_units(needed)} on the fullest rank, which {verdict} "
        f"the {in_units(usable)} usable of a device",
    )


def with_gather(config: RunConfig, mode: str) -> RunConfig:
    """The same run with `zero.gather` set."""
    return config.model_copy(update={"zero": config.zero.model_copy(update={"gather": mode})})


def what_moves(config: RunConfig, vocab_size: int) -> str:
    """How many of the whole model's parameters the optimizer moves, and what it keeps of them, in a sentence."""
    num_params, num_moving = whole_parameters(config, vocab_size)
    moments, of_all = (in_units(count * FLOAT32 * NUM_MOMENTS) for count in (num_moving, num_params))
    return (
        f"{num_moving:,} of {num_params:,} parameters move: {moments} of moments, where all would have {of_all}; "
        "the others stay as they came"
    )


def in_units(num_bytes: float) -> str:
    """Bytes as people read them, in powers of 1024."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"


def packet_elements(config: RunConfig) -> int:
    """Elements of what one micro-batch hands from stage to stage, on one rank; 0 with one stage."""
    model, parallel = config.model, config.parallel
    if parallel.pp == 1:
        return 0
    unit, width = sequence_unit(parallel), max(stack_widths(model).values())
    image = num_image_tokens(model, parallel) // unit
    texts = model.max_text_length // unit
    features = 2 * -(-model.embedding_size // width) + 1 if config.loss.compares else 0
    if not num_fusion_rows(config.loss):
        length = image + num_text_rows(config.loss) * texts if model.text_layers > 1 else image
        return max(length, features) * width * config.train.micro_batch_size
    rows = [
        image + num_text_rows(config.loss) * texts + features,
        image + num_fusion_rows(config.loss) * texts + features if model.fusion_layers > 1 else 0,
    ]
    return max(rows) * width * config.train.micro_batch_size


def picked_tokens(config: RunConfig) -> float:
    """Positions of a sample with the longest text that the vocabulary head reads: masked ones, and next tokens."""
    share = config.mlm.mask_share * (config.loss.mlm > 0) + (config.loss.of_lm > 0)
    return config.model.max_text_length * share


def _rank_bytes(
    config: RunConfig, part: Part, world_size: int, vocab_size: int, type_bytes: int, num_in_flight: int
) -> RankBytes:
    dp = data_parallel_size(config, world_size)
    num_params = stage_parameters(config, part, vocab_size)
    num_moving = moving_parameters(config, part, vocab_size)
    at_once = min(num_params, largest_use(config, part, vocab_size) + PREFETCHED)
    states = _states(config, num_params, num_moving, at_once, dp, type_bytes)
    num_packets = (not part.is_first) + (not part.is_last)
    return replace(
        states,
        activations=num_in_flight * _activations(config, part) * type_bytes + _logits_bytes(config, part, vocab_size),
        packets=num_in_flight * num_packets * packet_elements(config) * type_bytes,
    )


def _states(config: RunConfig, num_params: int, num_moving: int, at_once: int, dp: int, type_bytes: int) -> RankBytes:
    """Of a stage with `num_params` parameters on a tensor-parallel rank, of which `num_moving` move, `at_once` of them
    used together."""
    zero, whole = config.zero, num_params * type_bytes
    sum_bytes = FLOAT32 if type_bytes == FLOAT32 or zero.grad_accumulation == "fp32" else type_bytes
    own, own_moving = -(-num_params // dp), -(-num_moving // dp)
    moving_at_once = min(num_moving, at_once)
    separate_masters = type_bytes != FLOAT32 or dp > 1  # DeepSpeed copies weights that are float32 already
    held = RankBytes(
        weights=whole,
        gathered=0,
        gradients=num_moving * sum_bytes,
        optimizer=own_moving * FLOAT32 * (NUM_MOMENTS + separate_masters),
        buffers=0,
        activations=0,
        packets=0,
    )
    if dp == 1:
        return held
    held = replace(held, buffers=REDUCED_TOGETHER * type_bytes)
    if zero.stage == 1 and sum_bytes != type_bytes:
        return replace(held, gradients=num_moving * (type_bytes + sum_bytes), buffers=0)  # DeepSpeed's BF16_Optimizer
    if zero.stage == 1:
        return held
    if zero.stage == 2:
        return replace(held, gradients=moving_at_once * type_bytes + own_moving * sum_bytes)
    in_use = num_params if zero.gather == "per_step" else at_once
    moving_in_use = min(num_moving, in_use)
    return replace(
        held,
        weights=own * type_bytes,
        gathered=in_use * type_bytes,
        gradients=moving_in_use * type_bytes + own_moving * sum_bytes,
    )


def _activations(config: RunConfig, part: Part) -> int:
    """Elements that one micro-batch leaves behind for the backward pass, on one rank."""
    model, parallel, samples = config.model, config.parallel, config.train.micro_batch_size
    image_tokens = num_image_tokens(model, parallel) * samples
    text_tokens = {
        "text": num_text_rows(config.loss) * model.max_text_length * samples,
        "fusion": num_fusion_rows(config.loss) * model.max_text_length * samples,
    }
    total = 0
    for stack, recompute in config.model.recompute:
        num_layers, width = len(part.layers(stack)), stack_widths(model)[stack]
        tokens = text_tokens.get(stack, image_tokens)
        images = (image_tokens, num_fusion_rows(config.loss) * image_tokens) if stack == "fusion" else (0, 0)
        layer = _layer_elements(model, width, tokens, images, parallel.tp, sequence_unit(parallel))
        if recompute == "none" or num_layers == 0:
            total += num_layers * layer
        else:
            total += num_layers * tokens * width // sequence_unit(parallel) + layer
    return total


def _layer_elements(model: ModelConfig, width: int, tokens: int, images: tuple[int, int], tp: int, unit: int) -> int:
    """Elements one layer keeps: inputs of norms and matrices, queries, keys, values, and both sides of the GELU.

    `images` are the tokens whose keys and values cross-attention makes, and how many rows see them in all.
    """
    whole_rows = 4 + 2 * (images[0] > 0)  # inputs of the norms, and of the matrices behind them
    cut_rows = 4 + 2 * (images[0] > 0)  # queries, keys, values and what attention found; for images queries and found
    own = tokens * (whole_rows * width // unit + cut_rows * width // tp)
    inner = 2 * tokens * inner_width(width, model.mlp_ratio) // tp
    keys_and_values = 2 * (images[0] + images[1]) * width // tp
    return own + inner + keys_and_values


def _logits_bytes(config: RunConfig, part: Part, vocab_size: int) -> int:
    """Of the last stage's picked tokens: logits in float32, their copy, and their gradient."""
    if not part.is_last:
        return 0
    return int(3 * FLOAT32 * picked_tokens(config) * config.train.micro_batch_size * vocab_size / config.parallel.tp)
