"""Where each rank stands. Pure arithmetic, no processes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Coord:
    """One rank's place along each axis."""

    pp: int
    dp: int
    tp: int


@dataclass(frozen=True)
class Grid:
    """Where each rank stands in a pp x dp x tp block; tp neighbours are adjacent ranks."""

    pp: int
    dp: int
    tp: int

    @classmethod
    def over(cls, world_size: int, tp: int, pp: int) -> "Grid":
        """The grid of `world_size` ranks; dp is what tp and pp leave. The config's check says that they divide."""
        dp, rest = divmod(world_size, tp * pp)
        if not (rest == 0 and dp > 0):
            raise RuntimeError(f"{world_size} ranks do not fill a grid of tp {tp} x pp {pp}")
        return cls(pp=pp, dp=dp, tp=tp)

    @property
    def world_size(self) -> int:
        """How many ranks stand in the grid."""
        return self.pp * self.dp * self.tp

    def coord(self, rank: int) -> Coord:
        """The place of `rank`."""
        rest, tp = divmod(rank, self.tp)
        pp, dp = divmod(rest, self.dp)
        return Coord(pp=pp, dp=dp, tp=tp)

    def rank(self, coord: Coord) -> int:
        """The rank that stands at `coord`."""
        return (coord.pp * self.dp + coord.dp) * self.tp + coord.tp
