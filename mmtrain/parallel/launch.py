"""This process as its launcher started it, and how it ends when it cannot go on. Needs no torch."""

import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from mmtrain.io.arguments import shown
from mmtrain.io.command import ExitCode, describe_os_error
from mmtrain.io.console import print_error
from mmtrain.io.errors import InputError
from mmtrain.parallel.signals import Signals, name_of

EXPECTED_WARNINGS = (  # by dependencies, on every start; nobody can act on them
    "Transformer Engine and Apex are not installed",
    "full scope is deprecated",
    "`torch.distributed.all_gather_into_tensor` is deprecated",
    "`torch.distributed.reduce_scatter_tensor` is deprecated",
)
PROGRAM = "mmtrain"  # that begins every message of a rank
HEAD_START_SECONDS = 2.0
LAUNCHER_SECONDS = 10.0  # for the launcher to notice that a rank has ended, and to end the others
MAX_PORT, MAX_DIGITS = 65535, 9
PORT_TAKEN = ("EADDRINUSE", "address already in use")  # what torch says where it cannot listen on MASTER_PORT
# What torch says where another rank is at fault: gloo's words as its errors have no type, else the type.
LOST_WORDS = ("by peer", "gloo/transport", "caused pair closure", "Timed out waiting")
LOST_TYPES = ("DistBackendError", "DistNetworkError", "DistStoreError")


class RunStopped(InputError):
    """A run that cannot go on as it was asked; every rank finds it at the same step."""


class Preempted(Exception):
    """The run was asked to end by a signal, and saved; every rank ends at the same step."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"preempted by signal {name_of(signal_number)} at step {step}")


class LaunchError(InputError):
    """Environment variables of a launcher that are missing, no numbers, or do not fit each other."""


@dataclass(frozen=True)
class Launch:
    """What `torchrun`, `deepspeed` or a plain `python` start says of this process."""

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    node: str = field(default_factory=socket.gethostname)  # what the scheduler calls this machine


def read_launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """This process as its launcher describes it; one process alone if nobody does.

    LaunchError where a variable is missing, no number, or does not fit the others.
    """
    world_size, rank = _number(environment, "WORLD_SIZE"), _number(environment, "RANK")
    if world_size is None and rank is not None:
        raise LaunchError(
            f"RANK is {rank}, WORLD_SIZE is not set; unset RANK for a run of one process, or start the ranks with "
            "deepspeed or torchrun"
        )
    if rank is None and world_size is not None and world_size > 1:
        raise _missing("RANK", world_size)
    local_name = "LOCAL_WORLD_SIZE" if "LOCAL_WORLD_SIZE" in environment else "LOCAL_SIZE"
    local_world_size, local_rank = _number(environment, local_name), _number(environment, "LOCAL_RANK")
    world_size = 1 if world_size is None else world_size
    local_world_size = world_size if local_world_size is None else local_world_size
    _refuse_misfit(environment, (rank or 0, world_size), (local_rank or 0, local_name, local_world_size))
    return Launch(
        rank=rank or 0,
        local_rank=local_rank or 0,
        world_size=world_size,
        local_world_size=local_world_size,
        node=environment.get("SLURMD_NODENAME") or socket.gethostname(),
    )


def _refuse_misfit(environment: Mapping[str, str], ranks: tuple[int, int], local: tuple[int, str, int]) -> None:
    (rank, world_size), (local_rank, local_name, local_world_size) = ranks, local
    for name, value in (("WORLD_SIZE", world_size), (local_name, local_world_size)):
        if value < 1:
            raise LaunchError(f"{name} is {value}; wanted the number of ranks, at least 1")
    if rank >= world_size:
        raise LaunchError(f"RANK {rank} is not below WORLD_SIZE {world_size}")
    if local_world_size > world_size:
        raise LaunchError(f"{local_name} {local_world_size} is more than WORLD_SIZE {world_size}")
    if local_rank >= local_world_size:
        raise LaunchError(f"LOCAL_RANK {local_rank} is not below {local_name} {local_world_size}")
    port = _number(environment, "MASTER_PORT")
    if port is not None and not 0 < port <= MAX_PORT:
        raise LaunchError(f"MASTER_PORT is {port}; wanted a port, from 1 to {MAX_PORT}")


def refuse_incomplete(world_size: int, environment: Mapping[str, str] = os.environ) -> None:
    """LaunchError where a variable is not set without which several ranks cannot meet; asked before they do."""
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        if world_size > 1 and not environment.get(name):
            raise _missing(name, world_size)


def _missing(name: str, world_size: int) -> LaunchError:
    return LaunchError(f"WORLD_SIZE is {world_size}, {name} is not set; start the ranks with deepspeed or torchrun")


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """The value of a variable that counts something; None where it is not set."""
    text = environment.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise LaunchError(f"{name} is {shown(text)}; wanted a whole number of at least 0, or unset it")
    return int(text)


def hush_expected_warnings() -> None:
    """Keep off the screen what dependencies say on every start."""
    for beginning in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=beginning)


def in_one_sentence(
    work: Callable[[], int], launch: Launch, refusals: tuple[type[Exception], ...], signals: Signals | None = None
) -> int:
    """The exit code of `work`; one of `refusals` or an OSError becomes its message on stderr and exit code REFUSED.

    What every rank finds is said by the first one only: the others give it a head start, because a launcher ends all
    ranks as soon as one has ended. What only one rank finds, and what its machine refuses it, is said by that one. A
    rank that is left alone waits for the launcher to end it: why the other one ended is for that one to say, and for
    its exit code. Where no launcher does, it says at which step it lost the other, and ends with PEER_LOST. A run that
    saved on a signal ends with RESUMABLE.
    """
    signals = signals or Signals()
    try:
        return work()
    except Preempted as ended:
        if launch.rank == 0:
            print_error(PROGRAM, f"{ended}; the same command goes on from there")
        return ExitCode.RESUMABLE
    except KeyboardInterrupt:
        if launch.rank == 0:
            print_error(PROGRAM, "interrupted; the same command goes on from the last checkpoint")
        return ExitCode.INTERRUPTED
    except refusals as refusal:
        signals.defer()
        if launch.rank != 0:
            time.sleep(HEAD_START_SECONDS)
        if launch.rank == 0 or getattr(refusal, "of_one_rank", False):
            print_error(PROGRAM, str(refusal))
        return ExitCode.REFUSED
    except Exception as error:
        if is_port_taken(error):
            print_error(PROGRAM, _taken_port())
            return ExitCode.REFUSED
        if lost_another_rank(error, launch):
            return _end_alone(error, launch, signals)
        if not isinstance(error, OSError):
            raise
        print_error(PROGRAM, describe_os_error(error))
        return ExitCode.REFUSED


def _end_alone(error: Exception, launch: Launch, signals: Signals) -> int:
    signals.defer()
    signals.wait(LAUNCHER_SECONDS)
    if not signals.received:
        print_error(PROGRAM, _loss(error, launch))
    return ExitCode.PEER_LOST


def cause_of(error: BaseException, launch: Launch, refusals: tuple[type[Exception], ...]) -> str:
    """Why a run ended, as `in_one_sentence` says it; of what has a traceback its last line, and whose it is."""
    if isinstance(error, refusals):
        return str(error)
    if is_port_taken(error):
        return _taken_port()
    if lost_another_rank(error, launch):
        return _loss(error, launch)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, OSError):
        return f"rank {launch.rank}: {describe_os_error(error)}"
    said = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
    return f"rank {launch.rank} failed{getattr(error, 'where', '') and ' ' + error.where}: {said}"


def _loss(error: BaseException, launch: Launch) -> str:
    where = getattr(error, "where", "while the ranks came together")
    reason = str(error).strip().partition("\n")[0]
    return (
        f"rank {launch.rank} stopped {where}: another rank ended or did not answer within "
        f"parallel.timeout_seconds ({reason})"
    )


def is_port_taken(error: BaseException) -> bool:
    """Whether this rank could not listen where the others are to find it."""
    return any(word in str(error) for word in PORT_TAKEN)


def _taken_port() -> str:
    port = os.environ.get("MASTER_PORT", "")
    return f"port {port} is taken by another job; give deepspeed --master_port N, or torchrun --master-port N"


def lost_another_rank(error: BaseException, launch: Launch) -> bool:
    """Whether this is how a rank hears that another is gone."""
    return launch.world_size > 1 and (
        any(kind.__name__ in LOST_TYPES for kind in type(error).__mro__)
        or any(word in str(error) for word in LOST_WORDS)
    )


@contextmanager
def on_this_rank(refusal: type[Exception], where: Callable[[], str]) -> Iterator[None]:
    """What is refused inside was found amid the run by this rank, perhaps by no other, so this rank says it.

    `where` the run then stands is kept with any other error, for whoever reports it.
    """
    try:
        yield
    except refusal as found:
        found.of_one_rank = True
        raise
    except Exception as error:
        error.where = where()
        raise
