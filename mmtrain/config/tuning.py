"""Which weights of a run move, and how fast each of them: told by its name. No torch."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator

from mmtrain.config.section import Amount, Frozen, Positive

StackName = Literal["vision", "text", "fusion"]
PartName = Literal["vision", "text", "fusion", "heads"]  # a stack with its embedding and norms; all heads
STACKS: tuple[StackName, ...] = ("vision", "text", "fusion")
HEADS = "heads"
PARTS: tuple[PartName, ...] = (*STACKS, HEADS)

POSITIONS = "vision.embedding.positions"  # what the positions of patches are called
LORA_A, LORA_B = ".lora_a", ".lora_b"  # how the names of the small matrices end
MATRICES = {  # of a layer, by what they are part of
    "attention": ("linear_qkv", "linear_q", "linear_kv", "linear_proj"),
    "mlp": ("linear_fc1", "linear_fc2"),
}
LAYER = re.compile(r"(\w+)\.stack\.layers\.(\d+)\.(.+)")


class LoraConfig(Frozen):
    """Two small matrices beside each large one: W x + alpha / rank B A x (Hu et al. 2021). Only they move."""

    rank: Amount = 0  # rows of A and columns of B; 0: there are none, and the weights themselves move
    alpha: Positive = 16.0  # B A counts alpha / rank
    stacks: tuple[StackName, ...] = STACKS  # whose layers have them
    matrices: tuple[Literal["attention", "mlp"], ...] = ("attention", "mlp")  # beside which matrices of a layer
    beside: tuple[PartName, ...] = ()  # parts that move whole beside them, such as heads that were drawn anew

    @field_validator("stacks", "matrices", "beside", mode="before")
    @classmethod
    def _one_word_is_a_list(cls, given: object) -> object:
        return [given] if isinstance(given, str) else given

    @property
    def scale(self) -> float:
        """What their product counts."""
        return self.alpha / self.rank if self.rank else 0.0

    def stands_beside(self, name: str) -> bool:
        """Whether the weight `name` has small matrices beside it."""
        layer = LAYER.fullmatch(name)
        if not self.rank or layer is None or not name.endswith(".weight"):
            return False
        matrix = layer[3].split(".")[-2]
        return layer[1] in self.stacks and any(matrix in MATRICES[kind] for kind in self.matrices)


class FinetuneConfig(Frozen):
    """Which weights move, and how fast."""

    freeze: tuple[PartName, ...] = ()  # parts whose weights stay as they came, to the bit
    # Learning rate of a layer over that of the layer above it (Clark et al. 2020; Bao et al. 2022); 1: all the same.
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    lora: LoraConfig = LoraConfig()

    @field_validator("freeze", mode="before")
    @classmethod
    def _one_word_is_a_list(cls, given: object) -> object:
        return [given] if isinstance(given, str) else given

    @property
    def frozen(self) -> frozenset[str]:
        """The parts whose weights do not move."""
        with_lora = set(PARTS) - set(self.lora.beside) if self.lora.rank else set()
        return frozenset(self.freeze) | with_lora

    @property
    def moving(self) -> frozenset[str]:
        """The parts in which something moves: weights, or small matrices beside them."""
        with_lora = set(self.lora.stacks) if self.lora.rank and self.lora.matrices else set()
        return frozenset(PARTS) - self.frozen | with_lora

    def moves(self, name: str) -> bool:
        """Whether the optimizer moves the weight `name`."""
        return is_low_rank(name) or part_of(name) not in self.frozen

    def share_of(self, name: str, depths: Mapping[str, int]) -> float:
        """The learning rate of the weight `name` over that of the heads; `depths` are the layers of each stack."""
        return self.layer_decay ** steps_from_heads(name, depths)


def part_of(name: str) -> str:
    """The part of the model that a weight belongs to."""
    first = name.partition(".")[0]
    return first if first in STACKS else HEADS


def is_low_rank(name: str) -> bool:
    """Whether a weight is one of the small matrices."""
    return name.endswith((LORA_A, LORA_B))


def low_rank_of(name: str) -> tuple[str, str]:
    """The names of A and B beside the weight `name`."""
    matrix = name.removesuffix(".weight")
    return matrix + LORA_A, matrix + LORA_B


def steps_from_heads(name: str, depths: Mapping[str, int]) -> int:
    """How many layers lie from a weight to the heads, its own among them; the towers stand below the fusion stack.

    As in BEiT (Bao et al. 2022) an embedding, or the entry of the fusion, is one step below its stack's first layer,
    and a final norm belongs to what stands above it.
    """
    part = part_of(name)
    if part == HEADS:
        return 0
    above = 0 if part == "fusion" else depths["fusion"]
    if layer := LAYER.fullmatch(name):
        return above + depths[part] - int(layer[2])
    return above if ".final_norm." in name else above + depths[part] + 1
