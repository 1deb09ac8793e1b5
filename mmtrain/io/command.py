"""How a command ends: exit codes, and one sentence on standard error for what the user can mend. No torch."""

import errno
import os
import sys
from collections.abc import Callable
from enum import IntEnum

from mmtrain.io.errors import InputError
from mmtrain.io.text import printable


class ExitCode(IntEnum):
    """Exit codes of `mmtrain` and `mmdata`."""

    DONE = 0
    FAILED = 1  # an error of the program: it ends with a traceback
    REFUSED = 2  # an argument, file or setting cannot be used; the message says what to change
    PEER_LOST = 3  # of a rank of a distributed run: another rank ended or did not answer in time
    PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: saved on a signal; the same command resumes
    INTERRUPTED = 130  # 128 + SIGINT


def run_command(work: Callable[[], int], program: str) -> int:
    """The exit code of `work` in a program of one process.

    InputError and OSError become one message on stderr and REFUSED, an interrupt INTERRUPTED. A reader of standard
    output that went away (a closed pipe) ends the command quietly. All else keeps its traceback.
    """
    try:
        code = work()
        sys.stdout.flush()
        return code
    except InputError as error:
        return _refused(program, str(error))
    except BrokenPipeError:
        _silence_stdout()
        return ExitCode.DONE
    except OSError as error:
        return _refused(program, describe_os_error(error))
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED


def describe_os_error(error: OSError) -> str:
    """One sentence: which file, and what is wrong with it."""
    name = error.filename if error.filename is not None else "a file or the standard output"
    name = os.fsdecode(name) if isinstance(name, (str, bytes, os.PathLike)) else str(name)
    if error.errno == errno.ENAMETOOLONG and len(name) > 80:
        name = f"{name[:40]}...{name[-20:]} ({len(name)} characters)"
    return f"{name} cannot be used: {error.strerror or error}"


def _refused(program: str, message: str) -> int:
    text = "\n".join(printable(line) for line in f"{program}: {message}".split("\n"))
    print(text, file=sys.stderr, flush=True)
    return ExitCode.REFUSED


def _silence_stdout() -> None:
    """Keep the interpreter from flushing to a pipe that is closed when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
