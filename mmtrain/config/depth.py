"""The depth of the model as one flat list of layers: vision, then text, then fusion. Pure arithmetic, no torch."""

from dataclasses import dataclass

from mmtrain.config.schema import ModelConfig
from mmtrain.config.tuning import STACKS as STACKS


def layers_of(model: ModelConfig) -> dict[str, int]:
    """How many layers each stack has, in the order of the depth."""
    return {"vision": model.vision_layers, "text": model.text_layers, "fusion": model.fusion_layers}


@dataclass(frozen=True)
class Part:
    """The layers `start` to `stop` of the flat list: what one pipeline stage holds, or the whole model."""

    start: int
    stop: int
    sizes: tuple[int, int, int]  # layers of vision, text, fusion in the whole model

    @classmethod
    def whole(cls, model: ModelConfig) -> "Part":
        """All layers."""
        sizes = tuple(layers_of(model).values())
        return cls(0, sum(sizes), sizes)

    @classmethod
    def cut(cls, model: ModelConfig, counts: tuple[int, ...], stage: int) -> "Part":
        """Stage `stage` of a depth cut into `counts` consecutive layers."""
        whole = cls.whole(model)
        if sum(counts) != whole.stop:
            raise RuntimeError(f"{counts} are not the {whole.stop} layers of the model")
        start = sum(counts[:stage])
        return cls(start, start + counts[stage], whole.sizes)

    @property
    def is_first(self) -> bool:
        """Whether it begins with the images."""
        return self.start == 0

    @property
    def is_last(self) -> bool:
        """Whether it ends with the heads."""
        return self.stop == sum(self.sizes)

    def layers(self, stack: str) -> range:
        """Which of a stack's layers are here, by their numbers in the stack."""
        first, size = self._first(stack), self.sizes[STACKS.index(stack)]
        return range(min(max(self.start - first, 0), size), max(min(self.stop - first, size), 0))

    def begins(self, stack: str) -> bool:
        """Whether a stack's first layer is here, and its embedding or entry with it."""
        return self.start <= self._first(stack) < self.stop

    def ends(self, stack: str) -> bool:
        """Whether a stack's last layer is here, and its final norm with it."""
        return self.start < self._first(stack) + self.sizes[STACKS.index(stack)] <= self.stop

    def _first(self, stack: str) -> int:
        return sum(self.sizes[: STACKS.index(stack)])


def reached(sizes: tuple[int, int, int], depth: int) -> dict[str, int]:
    """How many layers of each stack lie before `depth` in the flat list."""
    passed, before = {}, 0
    for stack, size in zip(STACKS, sizes, strict=True):
        passed[stack] = min(max(depth - before, 0), size)
        before += size
    return passed
