"""Whether a run's layout is legal on a number of ranks, and if not what is in its way and what lies nearest.

A layout is what decides which rank holds what: tp, pp, the cut of the depth, sequence parallelism, ZeRO.
"""

from collections.abc import Iterator

from mmtrain.config.depth import layers_of
from mmtrain.config.schema import ModelConfig, ParallelConfig, RunConfig
from mmtrain.config.shapes import (
    data_parallel_size,
    inner_width,
    num_micro_batches,
    padded_vocab_size,
    stack_heads,
    stack_widths,
)


def layout_faults(config: RunConfig, world_size: int, num_pieces: int | None = None) -> list[str]:
    """Every reason why this layout cannot run on `world_size` ranks, each with a legal neighbour.

    `num_pieces` of the tokenizer, where they are known, decide whether tp divides the vocabulary.
    """
    parallel = config.parallel
    return [
        *_tensor_parallel_faults(config.model, parallel.tp, num_pieces),
        *_depth_faults(config.model, parallel),
        *_sequence_faults(config.model, parallel, num_pieces),
        *_world_faults(config, world_size, num_pieces),
        *_zero_faults(config),
    ]


def layout_remarks(config: RunConfig, world_size: int) -> list[str]:
    """What runs but wastes ranks, of a config without faults."""
    count, pp = num_micro_batches(config, world_size), config.parallel.pp
    if count >= pp:
        return []
    batches = "1 micro-batch" if count == 1 else f"{count} micro-batches"
    return [
        f"{batches} a step for parallel.pp={pp} stages: each is idle {idle_share(count, pp):.0%} of the time; "
        "a smaller train.micro_batch_size or a larger train.global_batch_size makes more"
    ]


def idle_share(num_batches: int, pp: int) -> float:
    """Share of a step in which a stage of equal stages waits, under 1F1B (Narayanan et al. 2021, section 2.2)."""
    return (pp - 1) / (num_batches + pp - 1)


def legal_tps(model: ModelConfig, num_pieces: int | None = None) -> list[int]:
    """Every tp that divides all that tensor parallelism cuts, in order; 1 is always among them."""
    return [tp for tp in range(1, model.num_heads + 1) if not any(_undivided(model, tp, num_pieces))]


def nearest_divisor(whole: int, wish: int) -> int:
    """The divisor of `whole` nearest to `wish`, the smaller of two as near."""
    return min((n for n in range(1, whole + 1) if whole % n == 0), key=lambda n: (abs(n - wish), n))


def nearest_multiple(unit: int, wish: int) -> int:
    """The multiple of `unit` nearest to `wish`, at least `unit`."""
    return max(unit, round(wish / unit) * unit)


def even_cut(num_layers: int, num_stages: int) -> list[int]:
    """Layers of each stage, as equal as they can be."""
    least, more = divmod(num_layers, num_stages)
    return [least + (stage < more) for stage in range(num_stages)]


def _undivided(model: ModelConfig, tp: int, num_pieces: int | None) -> Iterator[str]:
    """What `tp` ranks cannot share evenly; each width is named by the knob that set it."""
    if model.hidden_size % model.num_heads:
        return  # the shape itself is at fault, and found elsewhere
    knobs = {"fusion": "model.hidden_size", "vision": "model.vision_hidden_size", "text": "model.text_hidden_size"}
    widths, heads = stack_widths(model), stack_heads(model)
    own = [stack for stack in knobs if stack == "fusion" or widths[stack] != model.hidden_size]
    for stack in own:
        if heads[stack] % tp:
            width = f"{knobs[stack]} ({widths[stack]}) makes {heads[stack]} heads, which"
            subject = f"model.num_heads ({heads[stack]})" if stack == "fusion" else width
            yield f"{subject} is not divisible by parallel.tp ({tp})"
    for stack in own:
        inner = inner_width(widths[stack], model.mlp_ratio)
        if inner % tp:
            yield (
                f"model.mlp_ratio ({model.mlp_ratio:g}) makes an inner width of {inner} for {knobs[stack]} "
                f"({widths[stack]}), which is not divisible by parallel.tp ({tp})"
            )
    if num_pieces is not None and padded_vocab_size(num_pieces) % tp:
        yield (
            f"the vocabulary ({num_pieces} pieces, padded to {padded_vocab_size(num_pieces)} rows) is not divisible "
            f"by parallel.tp ({tp})"
        )


def _tensor_parallel_faults(model: ModelConfig, tp: int, num_pieces: int | None) -> list[str]:
    reasons = list(_undivided(model, tp, num_pieces))
    if not reasons:
        return []
    nearest = min(legal_tps(model, num_pieces), key=lambda legal: (abs(legal - tp), legal))
    return [f"{reason}; the nearest legal one is parallel.tp={nearest}" for reason in reasons]


def _depth_faults(model: ModelConfig, parallel: ParallelConfig) -> list[str]:
    by_stack, pp, by_hand = layers_of(model), parallel.pp, parallel.stage_layers
    chunks = parallel.chunks_per_stage
    total, parts = sum(by_stack.values()), pp * chunks
    names = ", ".join(f"{stack} {count}" for stack, count in by_stack.items())
    if pp > total:
        return [
            f"parallel.pp is {pp}, more stages than the {total} layers of the model ({names}); "
            f"the most is parallel.pp={total}"
        ]
    if chunks > 1 and pp == 1:
        return [f"parallel.chunks_per_stage is {chunks}, but parallel.pp=1 has no stages to interleave; set it to 1"]
    if parts > total:
        return [
            f"parallel.chunks_per_stage x pp is {parts}, more parts than the {total} layers of the model ({names}); "
            f"the most is parallel.chunks_per_stage={total // pp}"
        ]
    if by_hand is None:
        return []
    legal = f"for instance parallel.stage_layers={str(even_cut(total, parts)).replace(' ', '')}"
    wanted = f"parallel.pp is {pp}" if chunks == 1 else f"parallel.pp x chunks_per_stage is {parts}"
    if len(by_hand) != parts:
        return [f"parallel.stage_layers names {len(by_hand)} stages, but {wanted}; wanted {parts}, {legal}"]
    if sum(by_hand) != total:
        return [f"parallel.stage_layers adds up to {sum(by_hand)} layers, but the model has {total} ({names}); {legal}"]
    return []


def _sequence_faults(model: ModelConfig, parallel: ParallelConfig, num_pieces: int | None) -> list[str]:
    if not parallel.sequence_parallel:
        return []
    if parallel.tp == 1:
        more = legal_tps(model, num_pieces)[1:2]
        remedy = f"set it to false, or parallel.tp={more[0]}" if more else "set it to false"
        return [f"parallel.sequence_parallel shares tokens among tensor-parallel ranks, but parallel.tp is 1; {remedy}"]
    if model.max_text_length % parallel.tp:
        return [
            f"model.max_text_length is {model.max_text_length}, which parallel.sequence_parallel cannot share among "
            f"parallel.tp={parallel.tp} ranks; the nearest is "
            f"{nearest_multiple(parallel.tp, model.max_text_length)}"
        ]
    return []


def _world_faults(config: RunConfig, world_size: int, num_pieces: int | None) -> list[str]:
    parallel, train = config.parallel, config.train
    if world_size % (parallel.tp * parallel.pp):
        ranks = "1 rank was" if world_size == 1 else f"{world_size} ranks were"
        tp, pp = nearest_block(config, world_size, num_pieces)
        return [
            f"parallel.tp x pp is {parallel.tp * parallel.pp}, but {ranks} launched, which is no multiple of that; "
            f"the nearest that fits is parallel.tp={tp} parallel.pp={pp}"
        ]
    together = data_parallel_size(config, world_size) * train.micro_batch_size
    if train.global_batch_size % together:
        return [
            f"train.global_batch_size is {train.global_batch_size}, not a multiple of the {together} samples that "
            f"{together // train.micro_batch_size} data-parallel ranks with train.micro_batch_size="
            f"{train.micro_batch_size} run at once; the nearest is "
            f"{nearest_multiple(together, train.global_batch_size)}"
        ]
    rounds = together * parallel.pp
    if parallel.chunks_per_stage > 1 and train.global_batch_size % rounds:
        count = train.global_batch_size // together
        return [
            f"train.global_batch_size is {train.global_batch_size}: {count} micro-batches, but "
            f"parallel.chunks_per_stage={parallel.chunks_per_stage} wants a multiple of parallel.pp "
            f"({parallel.pp}) of them; the nearest is {nearest_multiple(rounds, train.global_batch_size)}"
        ]
    return []


def nearest_block(config: RunConfig, world_size: int, num_pieces: int | None = None) -> tuple[int, int]:
    """The legal tp and pp nearest to the wanted ones whose product divides `world_size`; of equals the smaller."""
    parallel, num_layers = config.parallel, sum(layers_of(config.model).values())
    fitting = (
        (tp, pp)
        for tp in legal_tps(config.model, num_pieces)
        for pp in range(1, num_layers + 1)
        if world_size % (tp * pp) == 0
    )
    return min(fitting, key=lambda block: (abs(block[0] - parallel.tp) + abs(block[1] - parallel.pp), block))


def _zero_faults(config: RunConfig) -> list[str]:
    zero = config.zero
    faults = []
    if zero.stage < 3 and zero.gather != "auto":
        faults.append(
            f"zero.gather is {zero.gather}, but with zero.stage={zero.stage} every rank holds whole weights; "
            "set zero.gather=auto or zero.stage=3"
        )
    if zero.grad_accumulation == "bf16" and config.precision == "fp32":
        faults.append(
            "zero.grad_accumulation is bf16, but with precision=fp32 gradients are fp32 throughout; "
            "set zero.grad_accumulation=fp32 or precision=bf16"
        )
    return faults
