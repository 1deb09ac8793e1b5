"""Names, rectangles and first values of the weights, the same whatever the layout."""

import math
import zlib
from collections.abc import Mapping

import torch

from mmtrain.config.depth import layers_of
from mmtrain.config.schema import ModelConfig
from mmtrain.config.tuning import LORA_A, LORA_B, POSITIONS
from mmtrain.parallel.slices import Slice

FULL = 1.0  # a norm's first weight
LONGEST_WAVE = 10_000  # over the shortest, of first positions


def named_slices(model: torch.nn.Module, tp_rank: int, tp: int) -> dict[str, Slice]:
    """Which rectangle of its whole tensor each parameter of this rank is. To be asked before ZeRO-3 cuts them."""
    return {
        name: Slice.of_part(name, tuple(param.shape), _cut_dim(param), tp_rank, tp)
        for name, param in model.named_parameters()
    }


def _cut_dim(param: torch.nn.Parameter) -> int | None:
    return param.partition_dim if getattr(param, "tensor_model_parallel", False) else None


def initialize(model: torch.nn.Module, slices: dict[str, Slice], *, seed: int, shape: ModelConfig) -> None:
    """Fill every parameter with a pure function of (seed, name), so that each layout starts from the same weights.

    Matrices, embeddings, positions and [CLS]: normal with `shape.init_std`, those of patches with their own, or on
    `waves`; matrices that write to the residual stream smaller by the root of twice the stack's depth (Radford et
    al. 2019); norms 1; biases 0; the temperature as it stands. Of LoRA's two A is drawn and B is 0: they begin with no
    effect.
    """
    depths = layers_of(shape)
    for name, param in model.named_parameters():
        if name.endswith("log_temperature"):
            continue
        if "norm" in name and name.endswith("weight"):
            param.data.fill_(FULL)
        elif name.endswith(("bias", LORA_B)):
            param.data.zero_()
        else:
            place = slices[name]
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
            whole = torch.randn(place.global_shape, generator=generator)
            if name == POSITIONS and shape.vision_position_init == "sincos":
                whole[-shape.num_patches :] = waves(math.isqrt(shape.num_patches), whole.shape[1])
            std = _std_of_lora(whole) if name.endswith(LORA_A) else _std(name, shape) * _scale(name, depths)
            param.data.copy_(whole[place.index] * std)


def waves(side: int, width: int) -> torch.Tensor:
    """Positions on a square of patches, [side * side, width]: sines and cosines of row and column.

    A quarter each, with wavelengths from 2 pi patches to LONGEST_WAVE times that (Vaswani et al. 2017; along two axes
    as in He et al., "Masked autoencoders are scalable vision learners", 2022). What all have in common is taken off,
    since it tells no place, and their root mean square is 1.
    """
    num_waves = -(-width // 4)
    frequencies = LONGEST_WAVE ** (-torch.arange(num_waves) / num_waves)
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).view(-1, 2)
    angles = [(places[:, axis, None] * frequencies) for axis in (0, 1)]
    positions = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)[:, :width]
    positions = positions - positions.mean(dim=0)
    return positions / positions.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)


def _std_of_lora(whole_KH: torch.Tensor) -> float:
    """Of a first A: that of the uniform distribution which LoRA's authors draw from (loralib)."""
    return 1 / math.sqrt(3 * whole_KH.shape[1])


def _std(name: str, shape: ModelConfig) -> float:
    own = shape.vision_position_std if name == POSITIONS else None
    return own or shape.init_std


def _scale(name: str, depths: Mapping[str, int]) -> float:
    writes = name.endswith(("linear_proj.weight", "linear_fc2.weight"))
    return 1 / math.sqrt(2 * depths[name.split(".")[0]]) if writes else 1.0
