"""Sizes that follow from the knobs: what the check, the planner and the model must all see alike. No torch."""

from mmtrain.config.schema import ModelConfig, ParallelConfig, RunConfig

VOCAB_MULTIPLE = 128  # Shoeybi et al. 2019 pad to it; the padding is the same for every layout, or losses would differ
# Knobs of the model that its weights do not follow, or can be made to fit: positions of patches.
FREE_OF_WEIGHTS = frozenset(
    ("init_std", "vision_position_std", "vision_position_init", "recompute", "init_from", "init_towers", "image_size")
)


def inner_width(width: int, mlp_ratio: float) -> int:
    """Width of the inner MLP layer of a stack `width` wide."""
    return int(width * mlp_ratio)


def padded_vocab_size(num_pieces: int, multiple: int = VOCAB_MULTIPLE) -> int:
    """Rows of the embedding and of the vocabulary head for a tokenizer of `num_pieces`."""
    return -(-num_pieces // multiple) * multiple


def stack_widths(model: ModelConfig) -> dict[str, int]:
    """Width of each stack, in the order of the depth."""
    return {"vision": model.vision_width, "text": model.text_width, "fusion": model.hidden_size}


def stack_heads(model: ModelConfig) -> dict[str, int]:
    """Attention heads of each stack: they are all of one size."""
    return {stack: width // model.head_size for stack, width in stack_widths(model).items()}


def stack_norm_epsilons(model: ModelConfig) -> dict[str, float]:
    """What each stack's norms add to the variance."""
    own = model.vision_norm_epsilon, model.text_norm_epsilon, None
    return {stack: given or model.norm_epsilon for stack, given in zip(stack_widths(model), own, strict=True)}


def stack_activations(model: ModelConfig) -> dict[str, str]:
    """Activation of each stack's inner MLP layers."""
    return {"vision": model.vision_activation, "text": model.text_activation, "fusion": "gelu"}


def sequence_unit(parallel: ParallelConfig) -> int:
    """How many ranks share the tokens: lengths are multiples of it."""
    return parallel.tp if parallel.sequence_parallel else 1


def num_image_tokens(model: ModelConfig, parallel: ParallelConfig) -> int:
    """[CLS] where there is one, the patches, and under sequence parallelism what fills them up to a multiple of tp."""
    real, unit = model.image_length, sequence_unit(parallel)
    return -(-real // unit) * unit


def data_parallel_size(config: RunConfig, world_size: int) -> int:
    """Ranks along the data-parallel axis; 0 where the other axes ask for more ranks than there are."""
    return world_size // (config.parallel.tp * config.parallel.pp)


def num_micro_batches(config: RunConfig, world_size: int) -> int:
    """Micro-batches of one optimizer step on each data-parallel rank, of a config that `check` accepts."""
    together = data_parallel_size(config, world_size) * config.train.micro_batch_size
    count, rest = divmod(config.train.global_batch_size, together)
    if rest != 0:
        raise RuntimeError(
            f"global batch {config.train.global_batch_size} over {together}: check() has not been called"
        )
    return count
