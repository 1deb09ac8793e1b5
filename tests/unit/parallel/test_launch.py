"""What the launcher says of this process, and who says why a run ends."""

import pytest

from mmtrain.parallel import launch
from mmtrain.parallel.launch import Launch, in_one_sentence, on_this_rank, read_launch


def rank(number: int, world_size: int = 2) -> Launch:
    return Launch(rank=number, local_rank=number, world_size=world_size, local_world_size=world_size)


def refuse() -> int:
    raise KeyError("the knob")


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been slept."""
    seconds: list[float] = []
    monkeypatch.setattr(launch.time, "sleep", seconds.append)
    return seconds


def test_a_process_that_nobody_launched_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert read_launch() == Launch(rank=0, local_rank=0, world_size=1, local_world_size=1)


def test_the_words_of_either_launcher_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setenv("LOCAL_SIZE", "4")  # deepspeed's
    assert read_launch() == Launch(rank=5, local_rank=1, world_size=8, local_world_size=4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # torchrun's
    assert read_launch().local_world_size == 2


def test_what_every_rank_refuses_is_said_by_the_first_which_has_a_head_start(
    slept: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_one_sentence(refuse, rank(0), (KeyError,)) == 2
    assert capsys.readouterr().err == "mmtrain: 'the knob'\n" and slept == []
    assert in_one_sentence(refuse, rank(1), (KeyError,)) == 2
    assert capsys.readouterr().err == "" and slept == [launch.HEAD_START_SECONDS]


def test_what_one_rank_refuses_amid_the_run_is_said_by_that_one(capsys: pytest.CaptureFixture[str]) -> None:
    def amid_the_run() -> int:
        with on_this_rank(KeyError):
            return refuse()

    assert in_one_sentence(amid_the_run, rank(1), (KeyError,)) == 2
    assert capsys.readouterr().err == "mmtrain: 'the knob'\n"


def test_a_rank_left_alone_gives_the_launcher_time_to_end_it_and_hides_nothing(slept: list[float]) -> None:
    def left_alone() -> int:
        raise RuntimeError("Connection closed by peer [127.0.0.1]:2988")

    with pytest.raises(RuntimeError, match="by peer"):
        in_one_sentence(left_alone, rank(0), (KeyError,))
    assert slept == [launch.LAUNCHER_SECONDS]


def test_a_fault_of_ours_is_raised_at_once(slept: list[float]) -> None:
    with pytest.raises(KeyError):
        in_one_sentence(refuse, rank(0), ())
    assert slept == []
