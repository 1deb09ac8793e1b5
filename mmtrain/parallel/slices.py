"""Which rectangle of a whole tensor a rank holds. Plain values, no torch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

Shape = tuple[int, ...]


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

    def of(self, kind: str) -> "Slice":
        """The same rectangle of what is kept beside this tensor under another name, such as its `exp_avg`."""
        return replace(self, name=f"{kind}/{self.name}") if kind else self

    def rectangles(self, start: int, stop: int) -> Iterator["Slice"]:
        """What elements `start` to `stop` of this slice, row by row, are of the whole tensor: one after the other.

        Of a matrix at most three rectangles: the end of a row, whole rows, the beginning of a row.
        """
        if not (0 <= start <= stop <= math.prod(self.shape)):
            raise RuntimeError(f"{start}:{stop} of {self}")
        for corner, shape in _tiles(self.shape, start, stop):
            offset = tuple(own + inside for own, inside in zip(self.offset, corner, strict=True))
            yield replace(self, offset=offset, shape=shape)


def _tiles(shape: Shape, start: int, stop: int) -> Iterator[tuple[Shape, Shape]]:
    """Corner and shape of the rectangles that make up elements `start` to `stop` of a tensor of `shape`."""
    if start == stop:
        return
    if not shape:
        yield (), ()
        return
    row = math.prod(shape[1:])
    first, last = -(-start // row), stop // row  # whole rows lie between
    if first > last:
        yield from _in_row(shape, last, start, stop)
        return
    yield from _in_row(shape, first - 1, start, first * row)
    if first < last:
        yield (first, *(0,) * len(shape[1:])), (last - first, *shape[1:])
    yield from _in_row(shape, last, last * row, stop)


def _in_row(shape: Shape, number: int, start: int, stop: int) -> Iterator[tuple[Shape, Shape]]:
    before = number * math.prod(shape[1:])
    for corner, size in _tiles(shape[1:], start - before, stop - before):
        yield (number, *corner), (1, *size)
