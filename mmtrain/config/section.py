"""What every section of a config is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_COUNT = 2**63 - 1
MAX_BEAMS = 1000
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-4, 1e4  # of sampling: beyond them float32 holds no probabilities
MAX_LENGTH_PENALTY = 10.0  # either way: a text's length to this power stays in float32

Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Amount = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Frozen(BaseModel):
    """A section: unknown keys are refused and nothing changes once it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def first_fault(error: Exception) -> str | None:
    """The first value that a section refuses, as "name is value: what is wanted"; None of errors of other kinds."""
    if not isinstance(error, ValidationError):
        return None
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))} is {first['input']!r:.60}: {first['msg']}"
