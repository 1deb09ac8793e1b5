"""pipe: sources: what a shell command writes, with its exit status and an idle time-out. No torch.

Who gives the command decides what runs here; `ObjectStore` asks for a permission first.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from mmtrain.io.errors import TransientError
from mmtrain.io.text import printable, redact

PIECE_BYTES = 2**20
ENDED_WELL = (0, 128 + signal.SIGPIPE)  # the latter: a part of a pipeline wanted no more of the part before it


def stream_command(command: str, timeout_seconds: float) -> Iterator[bytes]:
    """What `command` writes, run by bash (else sh); a failing part of a pipeline fails it, if there is bash.

    Raises TransientError with the last line of its stderr where it ends with another status than 0, and where it
    writes nothing for `timeout_seconds`; it is killed then, with all that it has started.
    """
    bash = shutil.which("bash")
    words = [bash, "-o", "pipefail", "-c", command] if bash else ["/bin/sh", "-c", command]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 (allowed by data.allow_pipe only)
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        try:
            yield from _pieces(process, timeout_seconds)
            status = process.wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise TransientError(f"the command does not end within {timeout_seconds:g} s") from error
        finally:
            _end(process)
        if status not in ENDED_WELL:
            last = _last_line(errors)
            raise TransientError(f"the command ended with exit code {status}" + (f": {last}" if last else ""))


def _pieces(process: subprocess.Popen[bytes], timeout_seconds: float) -> Iterator[bytes]:
    if process.stdout is None:
        raise RuntimeError("the command was started without a pipe for its output")
    output = process.stdout.fileno()
    poll = select.poll()
    poll.register(output, select.POLLIN)
    while True:
        if not poll.poll(timeout_seconds * 1000):
            raise TransientError(f"the command writes nothing for {timeout_seconds:g} s")
        piece = os.read(output, PIECE_BYTES)
        if not piece:
            return
        yield piece


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdout is None:
        raise RuntimeError("the command was started without a pipe for its output")
    process.stdout.close()
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(errors: BinaryIO) -> str:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
    lines = [line for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    return printable(redact(lines[-1].strip())) if lines else ""
