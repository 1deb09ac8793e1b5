"""What is said of steps that were left out, and of a loss that leaps."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mmtrain.config.schema import SurvivalConfig
from mmtrain.monitor.health import Health
from mmtrain.parallel.launch import RunStopped
from mmtrain.records import StepReport

REPORT = StepReport({"loss": 2.0}, 1.0, 1e-3, 0.07, num_samples=4, num_tokens=40, flops=1e6)
SKIPPED = replace(REPORT, losses={"loss": float("nan")}, grad_norm=float("nan"), is_skipped=True)


class Stream:
    """Gave the places 40 to 79 last."""

    def last_places(self) -> range:
        return range(40, 80)

    def names(self, places: Sequence[int]) -> list[str]:
        return [f"set-0.tar: k{place}" for place in places]


def losing(loss: float) -> StepReport:
    return replace(REPORT, losses={"loss": loss})


def health_of(**knobs: object) -> Health:
    return Health(SurvivalConfig(**knobs), speaks=True)


def test_after_too_many_skipped_steps_in_a_row_the_run_stops_and_names_the_batch() -> None:
    health = health_of(max_skipped_in_a_row=2)
    for step, report in enumerate([SKIPPED, SKIPPED, REPORT, SKIPPED, SKIPPED], 1):
        health.look(step, report, Stream())
    with pytest.raises(RunStopped, match=r"step 6 is number 3 in a row .*max_skipped_in_a_row \(2\)") as stopped:
        health.look(6, SKIPPED, Stream())
    assert "place 40 (set-0.tar: k40), place 41 (set-0.tar: k41)" in str(stopped.value)
    assert "and 32 more" in str(stopped.value)


def test_only_the_micro_batches_at_fault_are_named_where_they_are_known(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mmtrain"):
        health_of().look(1, replace(SKIPPED, bad_places=(44, 45)), Stream())
    assert caplog.messages == [
        "step 1 was left out: a loss or gradient is no finite number (1 in a row); its samples: "
        "place 44 (set-0.tar: k44), place 45 (set-0.tar: k45)"
    ]


def test_a_loss_that_leaps_is_told_from_one_that_only_trembles(caplog: pytest.LogCaptureFixture) -> None:
    health = health_of(spike_window=8, spike_deviations=10.0)
    losses = [2.0, 2.1, 1.9, 2.05, 2.0, 1.95, 2.1, 2.0, 2.3, 2.0, 5.0, 2.0]
    with caplog.at_level(logging.WARNING, "mmtrain"):
        for step, loss in enumerate(losses, 1):
            health.look(step, losing(loss), Stream())
    (said,) = caplog.messages
    assert said.startswith("step 11: the loss leapt to 5, above 2.5")


def test_one_outlier_hides_no_second(caplog: pytest.LogCaptureFixture) -> None:
    health = health_of(spike_window=8)
    with caplog.at_level(logging.WARNING, "mmtrain"):
        for step, loss in enumerate([2.0] * 8 + [50.0, 50.0] + [2.0] * 3, 1):
            health.look(step, losing(loss), Stream())
    assert len(caplog.messages) == 2


@pytest.mark.parametrize(("knobs", "speaks"), [({"spike_policy": "none"}, True), ({}, False)])
def test_nothing_is_said_where_nobody_asked_or_another_rank_speaks(
    knobs: dict[str, object], speaks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    health = Health(SurvivalConfig(spike_window=4, **knobs), speaks=speaks)
    for step, loss in enumerate([1.0] * 4 + [9.0], 1):
        health.look(step, losing(loss), Stream())
    assert caplog.messages == []
