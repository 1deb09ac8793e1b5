"""How a command ends: exit codes, and one sentence on standard error for what the user can mend. No torch."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum

from mmtrain.io.console import STDOUT, best_effort_output, open_standard_streams, print_error, silence
from mmtrain.io.errors import InputError

MAX_NAME = 80  # characters of a name in a sentence


class ExitCode(IntEnum):
    """Exit codes of `mmtrain` and `mmdata`; docs/commands.md has the same table."""

    DONE = 0
    FAILED = 1  # some of the input is bad and was named, the rest is done; or an error of the program, with a traceback
    REFUSED = 2  # an argument, file or setting cannot be used; the message says what to change
    PEER_LOST = 3  # of a rank of a distributed run: another rank ended or did not answer in time
    RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h: saved on a signal, or ended amid a hang; the same command resumes
    INTERRUPTED = 130  # 128 + SIGINT


def run_command(
    work: Callable[[], int], program: str, *, interrupted: str = "interrupted", needs_stdout: bool = True
) -> int:
    """The exit code of `work` in a program of one process.

    InputError and OSError become one message on stderr and REFUSED, an interrupt the sentence `interrupted` and
    INTERRUPTED. A reader of standard output that went away (a closed pipe) ends the command quietly; without
    `needs_stdout` whatever becomes of it ends nothing, as ever with standard error. All else keeps its traceback.
    """
    open_standard_streams()
    with best_effort_output(stdout=not needs_stdout):
        try:
            return _run_and_flush(work)
        except InputError as error:
            return refuse(program, str(error))
        except OSError as error:
            if error.filename in (None, STDOUT) and _stdout_is_gone(error):
                silence(sys.stdout)
                if isinstance(error, BrokenPipeError):
                    return ExitCode.DONE
            return refuse(program, describe_os_error(error))
        except KeyboardInterrupt:
            print_error(program, interrupted)
            return ExitCode.INTERRUPTED


def refuse(program: str, message: str) -> int:
    """Say what cannot be used; returns REFUSED."""
    print_error(program, message)
    return ExitCode.REFUSED


def describe_os_error(error: OSError) -> str:
    """One sentence: which file, and what is wrong with it."""
    if error.errno is None and error.filename is None:
        return str(error)
    name = error.filename if error.filename is not None else "a file or the standard output"
    name = os.fsdecode(name) if isinstance(name, (str, bytes, os.PathLike)) else str(name)
    if error.errno == errno.ENAMETOOLONG and len(name) > MAX_NAME:
        name = f"{name[:40]}...{name[-20:]} ({len(name)} characters)"
    return f"{name} cannot be used: {error.strerror or error}"


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give OSErrors without a file name that of `path`: writes to an open file carry none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def _run_and_flush(work: Callable[[], int]) -> int:
    try:
        code = work()
    except SystemExit:  # argparse, after --help or a wrong argument
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return code


def _stdout_is_gone(error: OSError) -> bool:
    if error.filename == STDOUT or isinstance(error, BrokenPipeError):
        return True
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False
