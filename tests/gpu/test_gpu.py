"""One step on a GPU equals one on the CPU, and the tiny config trains there."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.helpers import run_ranks, tiny_plan, train_steps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device answers on this machine"),
]
NUM_STEPS = 3
TOLERANCES = {"fp32": 1e-3, "bf16": 1e-2}  # the products of fp32 may round otherwise, those of bf16 keep 8 bits
TINY = Path(__file__).parents[2] / "configs" / "model" / "tiny.yaml"


def reports(precision: str, on_gpu: bool) -> list[Any]:
    """Steps of the samples made by hand, on the GPU or as if there were none."""
    import os

    if not on_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["DS_ACCELERATOR"] = "cpu"
    return train_steps(tiny_plan(precision=precision), NUM_STEPS)


def steps_of_the_tiny_model() -> list[Any]:
    """Steps of the demo's model in bf16."""
    model = yaml.safe_load(TINY.read_text())["model"]
    return train_steps(tiny_plan(model=model, precision="bf16"), NUM_STEPS)


@pytest.fixture(scope="module")
def on_cpu() -> list[Any]:
    return run_ranks(1, reports, "fp32", False)[0]


@pytest.mark.parametrize("precision", TOLERANCES)
def test_the_first_step_on_a_gpu_equals_that_on_the_cpu(precision: str, on_cpu: list[Any]) -> None:
    found, wanted = run_ranks(1, reports, precision, True)[0][0], on_cpu[0]
    assert found.losses == pytest.approx(wanted.losses, rel=TOLERANCES[precision])
    assert found.grad_norm == pytest.approx(wanted.grad_norm, rel=TOLERANCES[precision])


def test_the_steps_after_it_stay_together_in_fp32(on_cpu: list[Any]) -> None:
    for found, wanted in zip(run_ranks(1, reports, "fp32", True)[0], on_cpu, strict=True):
        assert found.losses == pytest.approx(wanted.losses, rel=1e-2)


def test_the_model_of_the_demo_runs_there_in_bf16() -> None:
    steps = run_ranks(1, steps_of_the_tiny_model)[0]
    assert len(steps) == NUM_STEPS
    assert all(0 < step.losses["loss"] < 30 and step.grad_norm > 0 for step in steps)
