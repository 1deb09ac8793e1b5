"""How many parameters each rank holds, counted from the knobs; exactly what the built model has."""

from mmtrain.config.depth import STACKS, Part
from mmtrain.config.schema import ModelConfig, ParallelConfig, RunConfig
from mmtrain.config.shapes import inner_width, stack_widths
from mmtrain.config.tuning import HEADS

CHANNELS = 3
MATCH_CLASSES = 2
PART_OF_EDGE = {"patch embedding": "vision", "token embedding": "text", "fusion entry": "fusion"}  # the others: heads


def stage_parameters(config: RunConfig, part: Part, vocab_size: int) -> int:
    """Parameters of one tensor-parallel rank of the stage that holds `part`; `vocab_size` is the padded one."""
    return sum(_by_part(config, part, vocab_size).values()) + _low_rank_parameters(config, part)


def moving_parameters(config: RunConfig, part: Part, vocab_size: int) -> int:
    """Those of them that the optimizer moves."""
    whole, frozen = _by_part(config, part, vocab_size), config.finetune.frozen
    return sum(count for name, count in whole.items() if name not in frozen) + _low_rank_parameters(config, part)


def whole_parameters(config: RunConfig, vocab_size: int) -> tuple[int, int]:
    """Parameters of the model, on however many ranks they lie, and those of them that the optimizer moves."""
    alone, whole = config.model_copy(update={"parallel": ParallelConfig()}), Part.whole(config.model)
    return stage_parameters(alone, whole, vocab_size), moving_parameters(alone, whole, vocab_size)


def _by_part(config: RunConfig, part: Part, vocab_size: int) -> dict[str, int]:
    """Parameters of each stack, with its embedding and norms, and of the heads."""
    model, tp = config.model, config.parallel.tp
    widths = stack_widths(model)
    counts = {stack: len(part.layers(stack)) * layer_parameters(model, stack, tp) for stack in STACKS}
    for stack in STACKS:
        counts[stack] += _norm(widths[stack]) * part.ends(stack)
    counts[HEADS] = 0
    for edge, count in edge_parameters(config, part, vocab_size).items():
        counts[PART_OF_EDGE.get(edge, HEADS)] += count
    return counts


def _low_rank_parameters(config: RunConfig, part: Part) -> int:
    """LoRA's matrices beside those of the layers in `part`: one of each pair is cut as the large one is."""
    model, tp, lora = config.model, config.parallel.tp, config.finetune.lora
    if not lora.rank:
        return 0
    total = 0
    for stack in lora.stacks:
        width = stack_widths(model)[stack]
        inner = inner_width(width, model.mlp_ratio)
        of_kind = {"attention": (width + 3 * width // tp) + (width // tp + width)}
        if stack == "fusion":  # queries of the texts, keys and values of the images, and what is read of them
            of_kind["attention"] += (width + width // tp) + (width + 2 * width // tp) + (width // tp + width)
        of_kind["mlp"] = (width + inner // tp) + (inner // tp + width)
        total += len(part.layers(stack)) * sum(of_kind[kind] for kind in lora.matrices)
    return lora.rank * total


def layer_parameters(model: ModelConfig, stack: str, tp: int) -> int:
    """Parameters of one layer on one tensor-parallel rank: matrices are cut, norms and summed biases are not."""
    width = stack_widths(model)[stack]
    inner = inner_width(width, model.mlp_ratio)
    attention = _norm(width) + _columns(width, 3 * width, tp) + _rows(width, width, tp)
    images = _norm(width) + _columns(width, 3 * width, tp) + _rows(width, width, tp)
    mlp = _norm(width) + _columns(width, inner, tp) + _rows(inner, width, tp)
    return attention + (images if stack == "fusion" else 0) + mlp


def edge_parameters(config: RunConfig, part: Part, vocab_size: int) -> dict[str, int]:
    """Parameters of what hangs on the depth's ends and joints, as far as it is in `part`, by name, on one rank."""
    model, tp = config.model, config.parallel.tp
    vision, text, hidden = stack_widths(model).values()
    found = {}
    if part.begins("vision"):
        patches = _linear(CHANNELS * model.patch_size**2, vision)
        entry_norm = _norm(vision) * model.vision_entry_norm
        found["patch embedding"] = patches + (model.vision_class_token + model.image_length) * vision + entry_norm
    if part.begins("text"):
        found["token embedding"] = vocab_size // tp * text + model.max_text_length * text
    if part.ends("text"):
        pool = _image_pool(model) if model.vision_pooling == "attention" else 0
        found["contrast head"] = (vision + text) * model.embedding_size + 1 + pool
    if part.begins("fusion"):
        to_width = sum(_linear(own, hidden) for own in (vision, text) if own != hidden)
        found["fusion entry"] = to_width + hidden
    if part.is_last:
        found["match head"] = _linear(hidden, MATCH_CLASSES)
        found["token head"] = _columns(hidden, vocab_size, tp)
        if config.task.answering == "choose":
            found["answer head"] = _linear(hidden, len(config.task.answers))
    return found


def largest_use(config: RunConfig, part: Part, vocab_size: int) -> int:
    """Parameters of the largest piece that is used at once: a layer, an embedding or a head."""
    layers = [layer_parameters(config.model, stack, config.parallel.tp) for stack in STACKS if part.layers(stack)]
    return max([*layers, *edge_parameters(config, part, vocab_size).values()])


def _image_pool(model: ModelConfig) -> int:
    """The query that looks at all image tokens, its attention, norm and MLP; the same on every rank."""
    width, inner = model.vision_width, inner_width(model.vision_width, model.mlp_ratio)
    attention = width + 2 * _linear(width, width) + _linear(width, 2 * width)
    return attention + _norm(width) + _linear(width, inner) + _linear(inner, width)


def _norm(width: int) -> int:
    return 2 * width


def _linear(inner: int, outer: int) -> int:
    return inner * outer + outer


def _columns(inner: int, outer: int, tp: int) -> int:
    """A matrix cut along its outputs, its bias with it."""
    return _linear(inner, outer) // tp


def _rows(inner: int, outer: int, tp: int) -> int:
    """A matrix cut along its inputs; each rank has the whole bias."""
    return inner * outer // tp + outer
