"""How a rank ends: refusals, losing another rank, and what is nobody's refusal."""

import pytest

from mmtrain.io.command import ExitCode
from mmtrain.parallel import launch as launching
from mmtrain.parallel.launch import Launch, RunStopped, in_one_sentence, on_this_rank


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "HEAD_START_SECONDS", 0.0)
    monkeypatch.setattr(launching, "LAUNCHER_SECONDS", 0.0)


def rank(number: int, world_size: int = 2) -> Launch:
    return Launch(rank=number, local_rank=number, world_size=world_size, local_world_size=world_size)


def failing(error: Exception) -> int:
    raise error


@pytest.mark.parametrize(("number", "speaks"), [(0, True), (1, False)])
def test_what_every_rank_finds_is_said_by_the_first(
    number: int, speaks: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_one_sentence(lambda: failing(RunStopped("no")), rank(number), (RunStopped,)) == ExitCode.REFUSED
    assert capsys.readouterr().err == ("mmtrain: no\n" if speaks else "")


def test_what_one_rank_finds_amid_the_run_is_said_by_that_one(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        with on_this_rank(ValueError, lambda: "in step 7"):
            raise ValueError("bad shard")

    assert in_one_sentence(work, rank(1), (ValueError,)) == ExitCode.REFUSED
    assert capsys.readouterr().err == "mmtrain: bad shard\n"


class DistStoreError(RuntimeError):
    """Named as torch names what the rendezvous raises."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:22424\nmore"),
        RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 5000ms for recv operation"),
        DistStoreError("Timed out after 31 seconds waiting for clients. 1/2 clients joined."),
    ],
)
def test_a_rank_that_lost_another_says_where_it_stood(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        with on_this_rank(ValueError, lambda: "in step 7"):
            raise error

    assert in_one_sentence(work, rank(1), (ValueError,)) == ExitCode.PEER_LOST
    said = capsys.readouterr().err
    assert said.startswith("mmtrain: rank 1 stopped in step 7: another rank ended") and said.count("\n") == 1
    assert in_one_sentence(lambda: failing(type(error)(str(error))), rank(0), ()) == ExitCode.PEER_LOST
    assert "rank 0 stopped while the ranks came together" in capsys.readouterr().err


def test_an_error_of_our_own_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"):
        in_one_sentence(lambda: failing(RuntimeError("shapes differ")), rank(0), ())
    with pytest.raises(RuntimeError, match="by peer"):
        in_one_sentence(lambda: failing(RuntimeError("reset by peer")), rank(0, world_size=1), ())
