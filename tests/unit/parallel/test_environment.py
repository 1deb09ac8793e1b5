"""The launcher's environment: what it says of this process, and what does not fit."""

import os
import signal
import subprocess
import sys

import pytest

from mmtrain.io.command import ExitCode
from mmtrain.parallel import launch as launching
from mmtrain.parallel.groups import stand_alone
from mmtrain.parallel.launch import Launch, LaunchError, in_one_sentence, read_launch, refuse_incomplete

MASTER = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def test_nothing_set_is_one_process() -> None:
    launch = read_launch({})
    assert (launch.rank, launch.local_rank, launch.world_size, launch.local_world_size) == (0, 0, 1, 1)


def test_what_torchrun_and_deepspeed_set_is_read() -> None:
    said = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", **MASTER}
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE"):
        launch = read_launch({**said, name: "2", "SLURMD_NODENAME": "n7"})
        assert launch == Launch(rank=3, local_rank=1, world_size=4, local_world_size=2, node="n7")


MISFITS = {
    "a rank left in a shell": ({"RANK": "3"}, "RANK is 3, WORLD_SIZE is not set"),
    "rank 0 left in a shell": ({"RANK": "0"}, "RANK is 0, WORLD_SIZE is not set"),
    "empty": ({"WORLD_SIZE": ""}, "WORLD_SIZE is ''; wanted a whole number"),
    "text": ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc'; wanted a whole number"),
    "negative": ({"WORLD_SIZE": "1", "RANK": "-1"}, "RANK is '-1'; wanted a whole number"),
    "other digits": ({"WORLD_SIZE": "٣"}, "WORLD_SIZE is '٣'; wanted a whole number"),
    "long": ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE is '999"),
    "no rank": ({"WORLD_SIZE": "2", **MASTER}, "WORLD_SIZE is 2, RANK is not set"),
    "empty local rank": ({"WORLD_SIZE": "1", "LOCAL_RANK": ""}, "LOCAL_RANK is ''"),
    "none": ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0; wanted the number of ranks, at least 1"),
    "rank too high": (
        {"WORLD_SIZE": "2", "RANK": "5", "LOCAL_RANK": "0", **MASTER},
        "RANK 5 is not below WORLD_SIZE 2",
    ),
    "local rank too high": (
        {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2", **MASTER},
        "LOCAL_RANK 2 is not below LOCAL_WORLD_SIZE 2",
    ),
    "too many here": (
        {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", **MASTER},
        "LOCAL_WORLD_SIZE 4 is more than WORLD_SIZE 2",
    ),
    "no port's number": ({"MASTER_PORT": "x"}, "MASTER_PORT is 'x'; wanted a whole number"),
    "no such port": ({"MASTER_PORT": "70000"}, "MASTER_PORT is 70000; wanted a port, from 1 to 65535"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_misfit_is_one_sentence_with_the_variable(misfit: str) -> None:
    environment, words = MISFITS[misfit]
    with pytest.raises(LaunchError) as refused:
        read_launch(environment)
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_ranks_that_could_not_meet_are_refused_before_they_try(name: str) -> None:
    whole = {"LOCAL_RANK": "0", **MASTER}
    refuse_incomplete(2, whole)
    refuse_incomplete(1, {})
    for lacking in ({one: value for one, value in whole.items() if one != name}, {**whole, name: ""}):
        with pytest.raises(LaunchError, match=f"WORLD_SIZE is 2, {name} is not set; start the ranks with"):
            refuse_incomplete(2, lacking)


def test_a_process_alone_ignores_an_address_left_in_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    left = {"MASTER_ADDR": "no.such.host.invalid", "MASTER_PORT": "22"}
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", dict(left))
    stand_alone()
    assert (os.environ["MASTER_ADDR"], os.environ["WORLD_SIZE"]) == ("127.0.0.1", "1")
    assert os.environ["MASTER_PORT"] != "22"
    monkeypatch.setattr(os, "environ", {**left, "WORLD_SIZE": "1"})  # as torchrun starts one rank
    stand_alone()
    assert {name: os.environ[name] for name in left} == left


@pytest.mark.parametrize("verb", ["pretrain", "finetune", "evaluate"])
def test_a_command_under_a_misfit_exits_with_2(verb: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from mmtrain.cli import main

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "3")
    assert main([verb, *(["nowhere"] if verb == "evaluate" else [])]) == ExitCode.REFUSED
    said = capsys.readouterr().err
    assert said.startswith("mmtrain: RANK is 3, WORLD_SIZE is not set") and said.count("\n") == 1


def test_a_taken_port_is_named_with_the_flag(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("MASTER_PORT", "29517")
    monkeypatch.setattr(launching, "HEAD_START_SECONDS", 0.0)

    def listen() -> int:
        raise RuntimeError("The server socket has failed to listen. port: 29517, EADDRINUSE")

    launch = Launch(rank=0, local_rank=0, world_size=2, local_world_size=2)
    assert in_one_sentence(listen, launch, ()) == ExitCode.REFUSED
    assert capsys.readouterr().err.startswith(
        "mmtrain: port 29517 is taken by another job; give deepspeed --master_port"
    )


STUCK = """
import sys, time
from mmtrain.parallel.signals import Signals
signals = Signals()
signals.listen_for(["SIGTERM"])
if sys.argv[1] == "training":
    signals.defer()
print("ready", flush=True)
import ctypes
# A native call in which Python runs no handler, as a rendezvous is; sleep(3) ends early when a signal comes.
left = 20
while left and not (sys.argv[1] == "training" and signals.received):
    left = ctypes.CDLL(None).sleep(left)
print("received", signals.received, flush=True)
"""


@pytest.mark.parametrize(("stage", "code"), [("start", 75), ("training", 0)])
def test_sigterm_ends_a_start_at_once_and_training_later(stage: str, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, stage], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert ("received 15" in out) == (stage == "training")
    assert ("ended by signal SIGTERM before training" in err) == (stage == "start")
