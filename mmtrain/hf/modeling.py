"""The twin of the model: two towers, the fusion and the contrast of features, as one Hugging Face model.

Axes: B images, R rows of text, T text positions, S image tokens, H width, E shared embedding.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.utils import ModelOutput

from mmtrain.config.schema import ModelConfig
from mmtrain.config.shapes import inner_width, stack_heads, stack_norm_epsilons
from mmtrain.hf.configuration import VLBertConfig
from mmtrain.hf.layers import ImageMemory, Mlp, Stack, attend


@dataclass
class VLBertOutput(ModelOutput):
    """What the model finds; `last_hidden_state` are the text's tokens after they have looked at the image."""

    last_hidden_state: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None  # [B, E], unit length; with `text_embeds` where the text looks both ways
    text_embeds: torch.Tensor | None = None
    image_hidden_state: torch.Tensor | None = None  # tokens of the image as the fusion sees them
    text_hidden_state: torch.Tensor | None = None  # tokens of the text before the fusion
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None  # of the fusion: before its first layer, after each
    attentions: tuple[torch.Tensor, ...] | None = None  # text to text, each fusion layer
    cross_attentions: tuple[torch.Tensor, ...] | None = None  # text to image, each fusion layer
    vision_hidden_states: tuple[torch.Tensor, ...] | None = None
    vision_attentions: tuple[torch.Tensor, ...] | None = None
    text_hidden_states: tuple[torch.Tensor, ...] | None = None
    text_attentions: tuple[torch.Tensor, ...] | None = None


class PatchEmbedding(nn.Module):
    """Pixels in [-1, 1], [B, 3, H, W] -> tokens [B, S, width] with their positions."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        width, self.patch_size, self.image_size = model.vision_width, model.patch_size, model.image_size
        self.patches = nn.Linear(3 * model.patch_size**2, width)
        self.cls = nn.Parameter(torch.zeros(width)) if model.vision_class_token else None
        self.positions = nn.Parameter(torch.zeros(model.image_length, width))

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        if pixels_BCHW.shape[1:] != (3, self.image_size, self.image_size):
            raise ValueError(
                f"pixel_values are {tuple(pixels_BCHW.shape)}; wanted [images, 3, {self.image_size}, "
                f"{self.image_size}], as VLBertProcessor makes them"
            )
        if not pixels_BCHW.is_floating_point():
            raise ValueError(
                f"pixel_values are {pixels_BCHW.dtype}; wanted floats in [-1, 1], as VLBertProcessor makes"
            )
        patches_BPN = F.unfold(pixels_BCHW.to(self.positions.dtype), self.patch_size, stride=self.patch_size)
        tokens_BSH = self.patches(patches_BPN.transpose(1, 2))
        if self.cls is not None:
            tokens_BSH = torch.cat([self.cls.expand(len(tokens_BSH), 1, -1), tokens_BSH], dim=1)
        return tokens_BSH + self.positions


class VisionTower(nn.Module):
    """Pixels -> image tokens."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        epsilon = stack_norm_epsilons(model)["vision"]
        self.embedding = PatchEmbedding(model)
        self.entry_norm = nn.LayerNorm(model.vision_width, eps=epsilon) if model.vision_entry_norm else nn.Identity()
        self.stack = Stack(model, "vision", model.vision_layers)


class TextTower(nn.Module):
    """Token ids -> text tokens."""

    def __init__(self, model: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, model.text_width)
        self.positions = nn.Parameter(torch.zeros(model.max_text_length, model.text_width))
        self.stack = Stack(model, "text", model.text_layers)


class Fusion(nn.Module):
    """Text tokens that look at image tokens; a learned token stands for an image that is not there."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        width = model.hidden_size
        self.image = nn.Linear(model.vision_width, width) if model.vision_width != width else nn.Identity()
        self.text = nn.Linear(model.text_width, width) if model.text_width != width else nn.Identity()
        self.no_image = nn.Parameter(torch.zeros(width))
        self.stack = Stack(model, "fusion", model.fusion_layers, first_cached=model.text_layers)


class ImagePool(nn.Module):
    """Image tokens [B, S, H] -> [B, H]: one learned query looks at all of them (Zhai et al. 2022)."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        width = model.vision_width
        self.num_heads = stack_heads(model)["vision"]
        self.probe = nn.Parameter(torch.zeros(width))
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=stack_norm_epsilons(model)["vision"])
        self.mlp = Mlp(width, inner_width(width, model.mlp_ratio), model.vision_activation)

    def forward(self, tokens_BSH: torch.Tensor) -> torch.Tensor:
        query = self.query(self.probe).expand(len(tokens_BSH), 1, -1)
        parts = (query, *self.key_value(tokens_BSH).chunk(2, dim=-1))
        heads = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        pooled_BH = self.project(attend(*heads, None, with_weights=False)[0][:, 0])
        return pooled_BH + self.mlp(self.norm(pooled_BH))


class Contrast(nn.Module):
    """What images and texts are compared by, and the learned temperature."""

    def __init__(self, config: VLBertConfig) -> None:
        super().__init__()
        model = config.plan
        self.image = nn.Linear(model.vision_width, model.embedding_size, bias=False)
        self.text = nn.Linear(model.text_width, model.embedding_size, bias=False)
        self.pool = ImagePool(model) if model.vision_pooling == "attention" else None
        self.log_temperature = nn.Parameter(torch.zeros(1))
        self.bounds = (config.min_temperature, config.max_temperature)

    @property
    def temperature(self) -> torch.Tensor:
        """[1], within its bounds."""
        return self.log_temperature.float().exp().clamp(*self.bounds)


SAFE_LOADING = {"use_safetensors": True, "trust_remote_code": False}


class VLBertPreTrainedModel(PreTrainedModel):
    """What every model of the family has alike."""

    config_class = VLBertConfig
    base_model_prefix = "vlbert"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["Layer"]
    _supports_sdpa = True
    _keys_to_ignore_on_load_unexpected = [r"^match\.", r"^token\.", r"^answer\."]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any) -> Any:
        """As of any model of transformers, but only safetensors are read: files of other kinds are pickles."""
        return super().from_pretrained(pretrained_model_name_or_path, *args, **(SAFE_LOADING | kwargs))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """First weights: normal, norms 1, biases 0; a run's own first weights are `mmtrain.model.weights`'."""
        for name, param in module.named_parameters(recurse=False):
            if isinstance(module, nn.LayerNorm):
                (init.ones_ if name == "weight" else init.zeros_)(param)
            elif name == "bias":
                init.zeros_(param)
            elif name == "log_temperature":
                init.constant_(param, -2.66)  # 0.07, as CLIP begins
            elif isinstance(module, PatchEmbedding) and name == "positions":
                init.normal_(param, std=self.config.vision_position_std or self.config.init_std)
            else:
                init.normal_(param, std=self.config.init_std)


def look_mask(
    known_RK: torch.Tensor | None, num_queries: int, *, causal: bool, num_keys: int, prefix: int = 0
) -> torch.Tensor | None:
    """[R or 1, 1, T, K]: where a query may look, the last `num_queries` of the keys asking; None where everywhere.

    Of causal ones the first `prefix` positions see each other all the same. Every query may look at itself: one of the
    padding would else see nothing, and be no number.
    """
    device = None if known_RK is None else known_RK.device
    own_TK = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(num_keys - num_queries)
    if prefix:
        place_K = torch.arange(num_keys, device=device)
        own_TK = own_TK | ((place_K[num_keys - num_queries :, None] < prefix) & (place_K < prefix))
    is_padded = known_RK is not None and not bool(known_RK.all())
    if not is_padded:
        return own_TK[None, None] if causal and num_queries > 1 else None
    known_R1TK = known_RK[:, None, None].expand(-1, 1, num_queries, -1)
    if causal:
        known_R1TK = known_R1TK & own_TK
    itself_TK = torch.ones_like(own_TK).tril(num_keys - num_queries).triu(num_keys - num_queries)
    return known_R1TK | itself_TK


class VLBertModel(VLBertPreTrainedModel):
    """Images and texts -> their features, and the text's tokens after they have looked at the image."""

    def __init__(self, config: VLBertConfig) -> None:
        super().__init__(config)
        model = config.plan
        self.vision = VisionTower(model)
        self.text = TextTower(model, config.vocab_size)
        self.contrast = Contrast(config)
        self.fusion = Fusion(model)
        self.is_causal_tower = model.text_attention == "causal"
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text.tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text.tokens = value

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        *,
        is_causal: bool = False,
        prefix_length: int = 0,
        has_image: torch.Tensor | None = None,
        image_memory: ImageMemory | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> VLBertOutput | tuple:
        """Texts [R, T] with the images [B, 3, size, size] that they belong to (R a multiple of B).

        `is_causal`: each token looks back only, as for generation, but the first `prefix_length`, pads among them, see
        each other. `has_image` [B] is false where an image is missing;
        without `pixel_values` none has one. `image_memory`: images seen before, see `remember`.
        """
        with_weights = self.config.output_attentions if output_attentions is None else output_attentions
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        found = VLBertOutput(past_key_values=past_key_values)
        if image_memory is None:
            image_memory, seen = self._remembered(pixel_values, has_image, len(input_ids), with_weights)
            for name, value in seen.items():
                found[name] = value
        known_RK = None if attention_mask is None else attention_mask.bool()
        num_keys = num_keys_of(input_ids, known_RK, past_key_values)  # asked before the text adds to the cache
        tokens_RTH, trace = self.read(input_ids, known_RK, position_ids, is_causal=is_causal, past=past_key_values,
                                      with_weights=with_weights, prefix_length=prefix_length)  # fmt: skip
        found.text_hidden_state, found.image_hidden_state = tokens_RTH, image_memory.tokens_BSH
        found.text_hidden_states, found.text_attentions = trace.hidden_states, trace.attentions
        if not is_causal and past_key_values is None:
            found.text_embeds = self.text_features(tokens_RTH, known_RK)
        mask = look_mask(known_RK, tokens_RTH.shape[1], causal=is_causal, num_keys=num_keys, prefix=prefix_length)
        found.last_hidden_state, trace = self.fusion.stack(
            self.fusion.text(tokens_RTH), mask, image_memory, past_key_values, with_weights
        )
        found.hidden_states, found.attentions = trace.hidden_states, trace.attentions
        found.cross_attentions = trace.image_attentions
        wants_hidden = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        found = shown(found, with_weights=with_weights, with_hidden=wants_hidden)
        return found if return_dict is not False else found.to_tuple()

    def see(self, pixel_values: torch.Tensor, with_weights: bool = False) -> tuple[torch.Tensor, VLBertOutput]:
        """Image tokens [B, S, width of the tower], and what was found on the way."""
        entry = self.vision.entry_norm(self.vision.embedding(pixel_values))
        tokens_BSH, trace = self.vision.stack(entry, with_weights=with_weights)
        return tokens_BSH, VLBertOutput(
            image_embeds=self.image_features(tokens_BSH),
            vision_hidden_states=trace.hidden_states,
            vision_attentions=trace.attentions,
        )

    def remember(
        self,
        pixel_values: torch.Tensor | None,
        has_image: torch.Tensor | None = None,
        *,
        num_rows: int = 1,
        keeps: bool = True,
    ) -> ImageMemory:
        """Images as the fusion looks at them; of `num_rows` texts without any, the learned token for none."""
        memory = self._remembered(pixel_values, has_image, num_rows, with_weights=False)[0]
        memory.keeps = keeps
        return memory

    def _remembered(
        self, pixel_values: torch.Tensor | None, has_image: torch.Tensor | None, num_rows: int, with_weights: bool
    ) -> tuple[ImageMemory, VLBertOutput]:
        if pixel_values is None:
            return ImageMemory(self.fusion.no_image.expand(num_rows, 1, -1)), VLBertOutput()
        tokens_BSH, seen = self.see(pixel_values, with_weights)
        tokens_BSH, seen_BS = self.fusion.image(tokens_BSH), None
        if has_image is not None and not bool(has_image.all()):
            first_B1H = torch.where(has_image[:, None, None], tokens_BSH[:, :1], self.fusion.no_image)
            tokens_BSH = torch.cat([first_B1H, tokens_BSH[:, 1:]], dim=1)
            place_S = torch.arange(tokens_BSH.shape[1], device=tokens_BSH.device)
            seen_BS = has_image[:, None] | (place_S == 0)
        return ImageMemory(tokens_BSH, seen_BS), seen

    def read(
        self,
        input_ids: torch.Tensor,
        known_RK: torch.Tensor | None,
        position_ids: torch.Tensor | None = None,
        *,
        is_causal: bool = False,
        prefix_length: int = 0,
        past: Cache | None = None,
        with_weights: bool = False,
    ) -> tuple:
        """Text tokens [R, T, width of the tower] of the last T of the known positions, and what happened on the way."""
        num_queries, num_keys = input_ids.shape[1], num_keys_of(input_ids, known_RK, past)
        if num_keys > self.config.max_text_length:
            raise ValueError(
                f"a text has {num_keys} tokens; wanted at most max_text_length ({self.config.max_text_length}): "
                "truncate it, or lower max_length or max_new_tokens"
            )
        if position_ids is None and known_RK is not None:
            position_ids = (known_RK.long().cumsum(-1) - 1).clamp_min(0)[:, -num_queries:]
        elif position_ids is None:
            position_ids = torch.arange(num_keys - num_queries, num_keys, device=input_ids.device)
        prefix = 0 if self.is_causal_tower else prefix_length
        causal = is_causal or self.is_causal_tower
        mask = look_mask(known_RK, num_queries, causal=causal, num_keys=num_keys, prefix=prefix)
        tokens_RTH = self.text.tokens(input_ids) + self.text.positions[position_ids]
        return self.text.stack(tokens_RTH, mask, None, past, with_weights)

    def image_features(self, tokens_BSH: torch.Tensor) -> torch.Tensor:
        """[B, E] of unit length, from the image tokens of the tower."""
        pooled_BH = tokens_BSH[:, 0] if self.contrast.pool is None else self.contrast.pool(tokens_BSH)
        return F.normalize(self.contrast.image(pooled_BH).float(), dim=-1)

    def text_features(self, tokens_RTH: torch.Tensor, known_RT: torch.Tensor | None = None) -> torch.Tensor:
        """[R, E] of unit length, from the text tokens of the tower."""
        last_R = torch.full((len(tokens_RTH),), tokens_RTH.shape[1] - 1, device=tokens_RTH.device)
        if self.config.text_pooling == "first":
            last_R = torch.zeros_like(last_R)
        elif known_RT is not None:
            last_R = (known_RT * torch.arange(known_RT.shape[1], device=known_RT.device)).amax(dim=1)
        read_RH = tokens_RTH[torch.arange(len(tokens_RTH), device=tokens_RTH.device), last_R]
        return F.normalize(self.contrast.text(read_RH).float(), dim=-1)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features [B, E] of unit length that compare with those of texts."""
        return self.see(pixel_values)[1].image_embeds

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Features [R, E] of unit length that compare with those of images."""
        known_RT = None if attention_mask is None else attention_mask.bool()
        return self.text_features(self.read(input_ids, known_RT)[0], known_RT)


def num_keys_of(input_ids: torch.Tensor, known_RK: torch.Tensor | None, past: Cache | None) -> int:
    """Positions of the texts so far, those in the cache and the new ones."""
    if known_RK is not None:
        return known_RK.shape[1]
    return input_ids.shape[1] + (0 if past is None else past.get_seq_length())


def shown(found: VLBertOutput, *, with_weights: bool, with_hidden: bool) -> VLBertOutput:
    """What was found without the traces that nobody asked for."""
    for name in list(found.keys()):
        is_weights, is_hidden = name.endswith("attentions"), name.endswith("hidden_states")
        if (is_weights and not with_weights) or (is_hidden and not with_hidden):
            found[name] = None
    return VLBertOutput(**found)
