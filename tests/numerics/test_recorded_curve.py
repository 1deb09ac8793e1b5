"""The losses of ten steps as they were when they were recorded: same seed, two commits, identical losses.

A change that moves them on purpose records them anew with `python -m tests.numerics.test_recorded_curve` and says why.
"""

import json
from pathlib import Path

import pytest

from tests.helpers import run_ranks, tiny_plan, train_steps

RECORDED = Path(__file__).with_name("recorded_curve.json")
NUM_STEPS = 10


def curve() -> list[dict[str, float]]:
    """The four losses, their sum, gradient norm and temperature of each step, on one process in fp32."""
    plan = tiny_plan(train={"micro_batch_size": 8, "learning_rate": 3e-3})
    reports = train_steps(plan, NUM_STEPS)
    return [{**report.losses, "grad_norm": report.grad_norm, "temperature": report.temperature} for report in reports]


def test_ten_steps_give_the_recorded_losses() -> None:
    recorded = json.loads(RECORDED.read_text())
    (found,) = run_ranks(1, curve)
    assert len(found) == len(recorded) == NUM_STEPS
    for step, (now, then) in enumerate(zip(found, recorded, strict=True), 1):
        assert now == pytest.approx(then, rel=1e-4), f"step {step}"


if __name__ == "__main__":
    (measured,) = run_ranks(1, curve)
    RECORDED.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"{RECORDED}: {NUM_STEPS} steps recorded")
