"""What each weight of a run is called in the twin. One tensor is one tensor: nothing is cut, turned or put together."""

import re
from collections.abc import Mapping

import torch

from mmtrain.hf.configuration import VLBertConfig

IN_A_LAYER = {
    "input_layernorm": "attention_norm",
    "self_attention.linear_qkv": "attention.qkv",
    "self_attention.linear_proj": "attention.out",
    "pre_cross_attn_layernorm": "image_norm",
    "cross_attention.linear_q": "image_attention.query",
    "cross_attention.linear_kv": "image_attention.key_value",
    "cross_attention.linear_proj": "image_attention.out",
    "pre_mlp_layernorm": "mlp_norm",
    "mlp.linear_fc1": "mlp.widen",
    "mlp.linear_fc2": "mlp.narrow",
}
OUTSIDE = {  # beginnings, the first that fits
    "vision.final_norm.": "vlbert.vision.stack.final_norm.",
    "text.final_norm.": "vlbert.text.stack.final_norm.",
    "fusion.final_norm.": "vlbert.fusion.stack.final_norm.",
    "vision.": "vlbert.vision.",
    "text.embedding.tokens.": "vlbert.text.tokens.",
    "text.embedding.positions": "vlbert.text.positions",
    "fusion.entry.": "vlbert.fusion.",
    "contrast.image_pool.widen.": "vlbert.contrast.pool.mlp.widen.",
    "contrast.image_pool.narrow.": "vlbert.contrast.pool.mlp.narrow.",
    "contrast.image_pool.": "vlbert.contrast.pool.",
    "contrast.": "vlbert.contrast.",
    "match.": "match.",
    "token.": "token.",
    "answer.logits.": "answer_head.",
}
LAYER = re.compile(r"(\w+\.stack\.layers\.\d+\.)(.+)\.(weight|bias)")


def in_twin(name: str) -> str:
    """The twin's name of a run's weight."""
    if layer := LAYER.fullmatch(name):
        return f"vlbert.{layer[1]}{IN_A_LAYER[layer[2]]}.{layer[3]}"
    begins = next(begin for begin in OUTSIDE if name.startswith(begin))
    return OUTSIDE[begins] + name.removeprefix(begins)


def in_run(name: str) -> str:
    """The run's name of a weight of the twin."""
    if layer := LAYER.fullmatch(name.removeprefix("vlbert.")):
        back = {twin: run for run, twin in IN_A_LAYER.items()}
        return f"{layer[1]}{back[layer[2]]}.{layer[3]}"
    begins = next(begin for begin in OUTSIDE if name.startswith(OUTSIDE[begin]))
    return begins + name.removeprefix(OUTSIDE[begins])


def shapes(config: VLBertConfig) -> Mapping[str, tuple[int, ...]]:
    """Every weight of the twin with all heads that a run trains, by name; nothing is allocated."""
    from mmtrain.hf.answering import VLBertForVisualQuestionAnswering
    from mmtrain.hf.generating import VLBertForImageCaptioning
    from mmtrain.hf.retrieval import VLBertForImageTextRetrieval

    with torch.device("meta"):
        models = [VLBertForImageCaptioning(config), VLBertForImageTextRetrieval(config)]
        if config.answers is not None:
            models.append(VLBertForVisualQuestionAnswering(config))
    return {name: tuple(param.shape) for model in models for name, param in model.named_parameters()}
