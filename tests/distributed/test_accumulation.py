"""In bf16 the gradients of many micro-batches add up in float32, unless asked otherwise."""

from typing import Any

import pytest

from tests.benchmarks.accumulation import found_on_a_rank
from tests.helpers import run_ranks


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], dict[str, Any]]:
    return run_ranks(2, found_on_a_rank, 8)[0]


@pytest.mark.parametrize("gather", ["per_step", "per_use"])
def test_sums_in_float32_are_as_exact_as_what_travels(gather: str, found: dict[Any, Any]) -> None:
    # A number rounded to bf16 once is off by 2**-9 of itself at most.
    assert found[gather, "fp32"]["error"] < 2**-8
    assert found[gather, "fp32"]["error"] < 0.75 * found[gather, "bf16"]["error"]


def test_gradients_travel_in_bf16_and_once_with_per_step(found: dict[Any, Any]) -> None:
    for (gather, _), of_way in found.items():
        assert of_way["dtypes"] == {"bfloat16"}
        assert of_way["bytes_reduced"] == pytest.approx(2 * (1 if gather == "per_step" else 8), rel=0.05)
