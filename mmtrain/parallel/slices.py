"""Which rectangle of a whole tensor a rank holds. Plain values, no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Slice:
    """A rectangle of the tensor `name`, whose whole shape is `global_shape`."""

    name: str
    global_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of_part(cls, name: str, shape: tuple[int, ...], dim: int | None, part: int, num_parts: int) -> "Slice":
        """Part `part` of `num_parts` equal parts along `dim`, each of `shape`; `dim` None is the whole tensor."""
        if dim is None:
            return cls(name, shape, (0,) * len(shape), shape)
        whole = tuple(size * num_parts if axis == dim else size for axis, size in enumerate(shape))
        offset = tuple(size * part if axis == dim else 0 for axis, size in enumerate(shape))
        return cls(name, whole, offset, shape)

    @property
    def index(self) -> tuple[slice, ...]:
        """What picks this rectangle out of the whole tensor."""
        return tuple(slice(start, start + size) for start, size in zip(self.offset, self.shape, strict=True))
