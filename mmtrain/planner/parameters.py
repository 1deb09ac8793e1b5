"""How many parameters each rank holds, counted from the knobs; exactly what the built model has."""

from mmtrain.config.depth import STACKS, Part
from mmtrain.config.schema import ModelConfig
from mmtrain.config.shapes import inner_width, stack_widths

CHANNELS = 3
MATCH_CLASSES = 2


def stage_parameters(model: ModelConfig, part: Part, vocab_size: int, tp: int) -> int:
    """Parameters of one tensor-parallel rank of the stage that holds `part`; `vocab_size` is the padded one."""
    widths = stack_widths(model)
    layers = sum(len(part.layers(stack)) * layer_parameters(model, stack, tp) for stack in STACKS)
    final_norms = sum(_norm(widths[stack]) for stack in STACKS if part.ends(stack))
    return layers + final_norms + sum(edge_parameters(model, part, vocab_size, tp).values())


def layer_parameters(model: ModelConfig, stack: str, tp: int) -> int:
    """Parameters of one layer on one tensor-parallel rank: matrices are cut, norms and summed biases are not."""
    width = stack_widths(model)[stack]
    inner = inner_width(width, model.mlp_ratio)
    attention = _norm(width) + _columns(width, 3 * width, tp) + _rows(width, width, tp)
    images = _norm(width) + _columns(width, 3 * width, tp) + _rows(width, width, tp)
    mlp = _norm(width) + _columns(width, inner, tp) + _rows(inner, width, tp)
    return attention + (images if stack == "fusion" else 0) + mlp


def edge_parameters(model: ModelConfig, part: Part, vocab_size: int, tp: int) -> dict[str, int]:
    """Parameters of what hangs on the depth's ends and joints, as far as it is in `part`, by name, on one rank."""
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
    return found


def largest_use(model: ModelConfig, part: Part, vocab_size: int, tp: int) -> int:
    """Parameters of the largest piece that is used at once: a layer, an embedding or a head."""
    layers = [layer_parameters(model, stack, tp) for stack in STACKS if part.layers(stack)]
    return max([*layers, *edge_parameters(model, part, vocab_size, tp).values()])


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
