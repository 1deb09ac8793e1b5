"""The layers of the twin in plain PyTorch, and what of an image and of a text they keep while a text is generated.

Axes: B images, R rows of text (a multiple of B: neighbours share an image), T positions, S image tokens, K keys,
A heads, D size of a head, H width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from mmtrain.config.schema import ModelConfig
from mmtrain.config.shapes import inner_width, stack_activations, stack_norm_epsilons, stack_widths

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu"}
KeysAndValues = tuple[torch.Tensor, torch.Tensor]
Attended = tuple[torch.Tensor, torch.Tensor | None]  # what was seen, and the weights where they are asked for


@dataclass
class ImageMemory:
    """Image tokens at the fusion's width, and each fusion layer's keys and values of them once it has made them."""

    tokens_BSH: torch.Tensor
    seen_BS: torch.Tensor | None = None  # None: every token may be looked at
    keeps: bool = False  # keys and values are made once, not for every new token; recomputed layers must make them
    kept: dict[int, KeysAndValues] = field(default_factory=dict)

    def of_layer(self, number: int, make: Callable[[torch.Tensor], KeysAndValues]) -> KeysAndValues:
        """Keys and values [B, A, S, D] of fusion layer `number`."""
        if not self.keeps:
            return make(self.tokens_BSH)
        if number not in self.kept:
            self.kept[number] = make(self.tokens_BSH)
        return self.kept[number]


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, *, with_weights: bool
) -> Attended:
    """[R, A, T, D] and keys [R, A, K, D] -> [R, T, A x D]; the mask is True where a query may look."""
    if not with_weights:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2), None
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    weights = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2), weights


class SelfAttention(nn.Module):
    """Tokens look at tokens of their row. `number` is the layer's place among those that keep keys and values."""

    def __init__(self, width: int, head_size: int, number: int) -> None:
        super().__init__()
        self.head_size, self.number = head_size, number
        self.qkv = nn.Linear(width, 3 * width)  # head after head, of each its query, key and value
        self.out = nn.Linear(width, width)

    def forward(
        self, hidden_RTH: torch.Tensor, mask: torch.Tensor | None, past: Cache | None, with_weights: bool
    ) -> Attended:
        query, key, value = self.qkv(hidden_RTH).unflatten(-1, (-1, 3, self.head_size)).permute(3, 0, 2, 1, 4)
        if past is not None:
            key, value = past.update(key, value, self.number)
        seen_RTH, weights = attend(query, key, value, mask, with_weights=with_weights)
        return self.out(seen_RTH), weights


class ImageAttention(nn.Module):
    """Text looks at the tokens of its image, whose keys and values all rows of that image share."""

    def __init__(self, width: int, head_size: int, number: int) -> None:
        super().__init__()
        self.head_size, self.number = head_size, number
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)  # head after head, of each its key and value
        self.out = nn.Linear(width, width)

    def forward(self, hidden_RTH: torch.Tensor, images: ImageMemory, with_weights: bool) -> Attended:
        key, value = images.of_layer(self.number, self._keys_and_values)
        num_rows, num_images = hidden_RTH.shape[0], key.shape[0]
        # Rows of one image ask together, so that beams need no copies of its keys and values.
        grouped = self.query(hidden_RTH).unflatten(0, (num_images, num_rows // num_images)).flatten(1, 2)
        query = grouped.unflatten(-1, (-1, self.head_size)).transpose(1, 2)
        mask = None if images.seen_BS is None else images.seen_BS[:, None, None]
        seen, weights = attend(query, key, value, mask, with_weights=with_weights)
        if weights is not None:
            weights = weights.unflatten(2, (-1, hidden_RTH.shape[1])).transpose(1, 2).flatten(0, 1)
        return self.out(seen.reshape(hidden_RTH.shape)), weights

    def _keys_and_values(self, tokens_BSH: torch.Tensor) -> KeysAndValues:
        return tuple(self.key_value(tokens_BSH).unflatten(-1, (-1, 2, self.head_size)).permute(3, 0, 2, 1, 4))


class Mlp(nn.Module):
    """Widen, bend, narrow."""

    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.activation = ACT2FN[ACTIVATIONS[activation]]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.narrow(self.activation(self.widen(hidden)))


class Layer(GradientCheckpointingLayer):
    """Pre-norm: self-attention, in the fusion attention to the image, MLP; each is added to what came in."""

    def __init__(self, model: ModelConfig, stack: str, number: int, cache_number: int) -> None:
        super().__init__()
        width, epsilon = stack_widths(model)[stack], stack_norm_epsilons(model)[stack]
        self.attention_norm = nn.LayerNorm(width, eps=epsilon)
        self.attention = SelfAttention(width, model.head_size, cache_number)
        self.image_norm = self.image_attention = None
        if stack == "fusion":
            self.image_norm = nn.LayerNorm(width, eps=epsilon)
            self.image_attention = ImageAttention(width, model.head_size, number)
        self.mlp_norm = nn.LayerNorm(width, eps=epsilon)
        self.mlp = Mlp(width, inner_width(width, model.mlp_ratio), stack_activations(model)[stack])

    def forward(
        self,
        hidden_RTH: torch.Tensor,
        mask: torch.Tensor | None,
        images: ImageMemory | None = None,
        past_key_values: Cache | None = None,
        with_weights: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """[R, T, H] -> [R, T, H], and the weights of both attentions where they are asked for."""
        seen, weights = self.attention(self.attention_norm(hidden_RTH), mask, past_key_values, with_weights)
        hidden_RTH, image_weights = hidden_RTH + seen, None
        if self.image_attention is not None:
            seen, image_weights = self.image_attention(self.image_norm(hidden_RTH), images, with_weights)
            hidden_RTH = hidden_RTH + seen
        return hidden_RTH + self.mlp(self.mlp_norm(hidden_RTH)), weights, image_weights


@dataclass
class Trace:
    """What a stack did on its way: tokens before the first and after each layer, and weights where asked for."""

    hidden_states: tuple[torch.Tensor, ...] = ()
    attentions: tuple[torch.Tensor, ...] = ()
    image_attentions: tuple[torch.Tensor, ...] = ()


class Stack(nn.Module):
    """The layers of one stack and the norm behind them."""

    def __init__(self, model: ModelConfig, stack: str, num_layers: int, first_cached: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [Layer(model, stack, number, first_cached + number) for number in range(num_layers)]
        )
        self.final_norm = nn.LayerNorm(stack_widths(model)[stack], eps=stack_norm_epsilons(model)[stack])

    def forward(
        self,
        hidden_RTH: torch.Tensor,
        mask: torch.Tensor | None = None,
        images: ImageMemory | None = None,
        past: Cache | None = None,
        with_weights: bool = False,
    ) -> tuple[torch.Tensor, Trace]:
        """[R, T, H] -> [R, T, H] after the norm, and what happened before it."""
        hidden, seen, image_seen = [hidden_RTH], [], []
        for layer in self.layers:
            found = layer(hidden[-1], mask, images, past_key_values=past, with_weights=with_weights)
            hidden.append(found[0])
            seen.append(found[1])
            image_seen.append(found[2])
        trace = Trace(tuple(hidden), *(tuple(column) if with_weights else () for column in (seen, image_seen)))
        return self.final_norm(hidden[-1]), trace
