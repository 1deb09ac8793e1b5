"""Tries, pauses and their bounds."""

import pytest

from mmtrain.io.errors import NotFoundError, RetriesExhaustedError, TransientError
from mmtrain.io.retry import RetryPolicy


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept; the clock goes on by as much."""
    slept: list[float] = []
    monkeypatch.setattr("mmtrain.io.retry.time.sleep", slept.append)
    monkeypatch.setattr("mmtrain.io.retry.time.monotonic", lambda: sum(slept))
    return slept


def failing(times: int, error: Exception) -> object:
    left = [error] * times

    def act() -> str:
        if left:
            raise left.pop()
        return "done"

    return act


def test_pauses_grow_with_some_jitter(pauses: list[float]) -> None:
    assert RetryPolicy(4, 1.0, jitter=0.25).call(failing(4, TransientError("no")), "x") == "done"
    assert [0.75 * 2**n <= pause <= 1.25 * 2**n for n, pause in enumerate(pauses)] == [True] * 4


def test_the_last_failure_is_named(pauses: list[float]) -> None:
    told: list[str] = []
    with pytest.raises(RetriesExhaustedError, match="x could not be read in 3 tries: HTTP 503") as caught:
        RetryPolicy(2).call(failing(9, TransientError("HTTP 503")), "x", on_retry=told.append)
    assert (caught.value.num_tries, len(told), len(pauses)) == (3, 2, 2)


def test_other_errors_pass_at_once(pauses: list[float]) -> None:
    for error in (NotFoundError("gone"), KeyError("bug")):
        with pytest.raises(type(error)):
            RetryPolicy(4).call(failing(1, error), "x")
    assert not pauses


def test_the_other_side_may_ask_for_more_time_within_a_bound(pauses: list[float]) -> None:
    policy = RetryPolicy(2, 0.1, max_pause_seconds=60.0)
    assert policy.call(failing(1, TransientError("busy", 7.0)), "x") == "done"
    assert policy.call(failing(1, TransientError("busy", 10**9)), "x") == "done"
    assert pauses == [7.0, 60.0]


def test_no_try_begins_after_the_deadline(pauses: list[float]) -> None:
    policy = RetryPolicy(None, 1.0, growth=1.0, jitter=0.0, deadline_seconds=3.5)
    with pytest.raises(RetriesExhaustedError, match="4 tries"):
        policy.call(failing(99, TransientError("no")), "x")
    assert pauses == [1.0, 1.0, 1.0]
