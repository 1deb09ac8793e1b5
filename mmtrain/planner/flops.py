"""Floating-point operations of one optimizer step, counted per stack from shapes.

A product of [m, k] and [k, n] is 2 m k n operations. Counted are the products of matrices, as in appendix B of PaLM
(Chowdhery et al., 2022) and in Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using
Megatron-LM" (2021); norms, activations, look-ups, and the similarities of ITC, are left out. Attention counts all
pairs of positions, masked ones too. The backward pass is twice the forward: gradients of what comes in, and of weights;
frozen ones need none, and where nothing below them moves either none at all. LoRA's own products, and recomputed
activations, do not count (PaLM's model FLOPs utilization): a run that recomputes shows a smaller utilization, because
it does more than the model needs.

Lengths: S image tokens ([CLS] and patches), T text tokens. A row is one sequence of T that a stack runs.
"""

from mmtrain.config.schema import LossConfig, ModelConfig
from mmtrain.config.shapes import inner_width
from mmtrain.config.tuning import FinetuneConfig

FORWARD_AND_BACKWARD = 3  # in units of the forward pass, where everything moves
BELOW = {"vision": (), "text": (), "fusion": ("vision", "text"), "heads": ("vision", "text", "fusion")}
EVERYTHING_MOVES = FinetuneConfig()
CHANNELS = 3
MATCH_CLASSES = 2
ITM_ROWS = 3  # the pair, its negative image, its negative text


def step_flops(
    model: ModelConfig,
    loss: LossConfig,
    vocab_size: int,
    *,
    num_samples: int,
    text_length: int,
    num_picked_tokens: int,
    num_patches: int | None = None,
    finetune: FinetuneConfig = EVERYTHING_MOVES,
) -> dict[str, float]:
    """Operations, forward and backward, of `num_samples` samples padded to `text_length` tokens, by stack.

    `num_picked_tokens` are the positions that the vocabulary head reads: masked tokens of MLM and next tokens of LM.
    `num_patches` of each image, where it is not the model's square.
    Keys: vision, text, fusion, heads. An objective with weight 0 has no rows and adds nothing.
    """
    num_patches = model.num_patches if num_patches is None else num_patches
    image_length = num_patches + model.vision_class_token
    forward = {
        "vision": num_samples * _vision(model, num_patches, image_length),
        "text": num_samples * num_text_rows(loss) * _text_row(model, text_length),
        "fusion": num_samples * _fusion(model, num_fusion_rows(loss), image_length, text_length),
        "heads": num_samples * _pooled_heads(model, loss) + _product(num_picked_tokens, model.hidden_size, vocab_size),
    }
    return {stack: float(_num_passes(stack, finetune) * count) for stack, count in forward.items()}


def _num_passes(stack: str, finetune: FinetuneConfig) -> int:
    """A stack's operations in units of its forward pass."""
    is_passed = any(part in finetune.moving for part in (stack, *BELOW[stack]))  # by gradients of what comes in
    return FORWARD_AND_BACKWARD - (not is_passed) - (stack in finetune.frozen)


def layer_flops(model: ModelConfig, loss: LossConfig, vocab_size: int) -> dict[str, float]:
    """Operations of one layer of each stack, and of the heads, for one sample with a text of the greatest length."""
    length = model.max_text_length
    total = step_flops(model, loss, vocab_size, num_samples=1, text_length=length, num_picked_tokens=length)
    layers = {"vision": model.vision_layers, "text": model.text_layers, "fusion": model.fusion_layers, "heads": 1}
    return {stack: total[stack] / count for stack, count in layers.items()}


def num_text_rows(loss: LossConfig) -> int:
    """Rows of the text stack per sample: clean (for ITC and ITM), masked (MLM), causal (LM)."""
    return int(loss.compares) + int(loss.mlm > 0) + int(loss.of_lm > 0)


def num_fusion_rows(loss: LossConfig) -> int:
    """Rows of the fusion stack per sample: masked (MLM), causal (LM), and those of ITM, of which a choice needs one."""
    matched = ITM_ROWS if loss.of_itm > 0 else int(loss.answer > 0)
    return int(loss.mlm > 0) + int(loss.of_lm > 0) + matched


def _product(rows: int, inner: int, columns: int) -> int:
    return 2 * rows * inner * columns


def _mlp(length: int, width: int, mlp_ratio: float) -> int:
    return 2 * _product(length, width, inner_width(width, mlp_ratio))


def _attention(queries: int, keys: int, width: int) -> int:
    """Scores and the weighted sum of values, over all heads."""
    return 2 * _product(queries, width, keys)


def _self_attention(length: int, width: int) -> int:
    """Queries, keys and values, attention, and the projection behind it."""
    return _product(length, width, 3 * width) + _attention(length, length, width) + _product(length, width, width)


def _vision(model: ModelConfig, num_patches: int, image_length: int) -> int:
    """The vision tower on one image: patch embedding and layers."""
    width = model.vision_width
    patches = _product(num_patches, CHANNELS * model.patch_size**2, width)
    layer = _self_attention(image_length, width) + _mlp(image_length, width, model.mlp_ratio)
    return patches + model.vision_layers * layer


def _text_row(model: ModelConfig, text_length: int) -> int:
    """The text tower on one row."""
    width = model.text_width
    return model.text_layers * (_self_attention(text_length, width) + _mlp(text_length, width, model.mlp_ratio))


def _fusion(model: ModelConfig, num_rows: int, image_length: int, text_length: int) -> int:
    """The fusion stack on the rows of one sample, with the projections of towers of another width."""
    if num_rows == 0:
        return 0
    width = model.hidden_size
    row = (
        _self_attention(text_length, width)
        + 2 * _product(text_length, width, width)  # the cross-attention's queries and outputs
        + _attention(text_length, image_length, width)
        + _mlp(text_length, width, model.mlp_ratio)
    )
    # Rows share the image: its keys and values are made once, however many rows attend them.
    keys_and_values = _product(image_length, width, 2 * width)
    return model.fusion_layers * (keys_and_values + num_rows * row) + _entry(model, num_rows, image_length, text_length)


def _entry(model: ModelConfig, num_rows: int, image_length: int, text_length: int) -> int:
    """Projections to the fusion width, of the towers that have another."""
    image = _product(image_length, model.vision_width, model.hidden_size)
    text = num_rows * _product(text_length, model.text_width, model.hidden_size)
    return image * (model.vision_width != model.hidden_size) + text * (model.text_width != model.hidden_size)


def _pooled_heads(model: ModelConfig, loss: LossConfig) -> int:
    """The heads that read one vector: image and text projections, and the match head."""
    projections = _product(1, model.vision_width + model.text_width, model.embedding_size)
    if model.vision_pooling == "attention":
        projections += _image_pool(model)
    match = ITM_ROWS * _product(1, model.hidden_size, MATCH_CLASSES)
    return projections * loss.compares + match * (loss.of_itm > 0)


def _image_pool(model: ModelConfig) -> int:
    """One query that looks at every image token, and the MLP behind it."""
    width, length = model.vision_width, model.image_length
    projections = 2 * _product(1, width, width) + _product(length, width, 2 * width)
    return projections + _attention(1, length, width) + _mlp(1, width, model.mlp_ratio)
