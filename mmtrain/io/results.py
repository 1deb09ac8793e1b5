"""JSON Lines files of results, written line by line: an interruption loses nothing already shown. No torch.

Names of files are kept exactly: a byte that is not UTF-8 stands as the escape of its PEP 383 surrogate ("\\udcNN"), and
`os.fsencode` of the parsed text gives the name's bytes back.
"""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mmtrain.io.atomic import FILE_MODE, publish, temporary_name
from mmtrain.io.command import naming
from mmtrain.io.console import print_error
from mmtrain.io.errors import InputError
from mmtrain.io.json_text import MAX_JSON_BYTES, JsonError, lenient_json
from mmtrain.io.replace import check_output_file


class ResultFile:
    """A JSON Lines file for results; InputError at once where it could not be written, before any work is done.

    The first line makes the file; an interrupted command leaves the whole lines so far. With `overwrite` the file that
    is there stays until the new one is complete; an interrupted command leaves the new lines beside it. A device or a
    pipe is written to as it is.
    """

    def __init__(self, path: Path, *, flag: str, overwrite: bool) -> None:
        self.path = path
        self._is_special, self._replaces = _check(path, flag, overwrite=overwrite)
        self._written_to = path
        self._descriptor: int | None = None
        self._num_bytes = 0  # of whole lines

    def write(self, row: dict[str, Any]) -> None:
        """Append `row` as a line, handed to the system whole or not at all."""
        line = json.dumps(row).encode() + b"\n"
        with naming(self.path):
            descriptor = self._opened()
            try:
                left = memoryview(line)
                while left:
                    left = left[os.write(descriptor, left) :]
            except OSError:
                if not self._is_special:
                    os.ftruncate(descriptor, self._num_bytes)
                raise
        self._num_bytes += len(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        with naming(self.path):
            descriptor = self._opened()  # no result is an empty file
            if not self._is_special:
                os.fsync(descriptor)
            os.close(descriptor)
            if self._written_to != self.path:
                publish(self._written_to, Path(os.path.realpath(self.path)))

    def _opened(self) -> int:
        if self._descriptor is None:
            if self._replaces:
                self._written_to = temporary_name(Path(os.path.realpath(self.path)))
            how = 0 if self._is_special else os.O_CREAT | os.O_EXCL
            self._descriptor = os.open(self._written_to, os.O_WRONLY | os.O_CLOEXEC | how, FILE_MODE)
        return self._descriptor

    def _abandon(self) -> None:
        if self._descriptor is None:
            return
        os.close(self._descriptor)
        if not self._num_bytes and not self._is_special:
            self._written_to.unlink()
        elif self._written_to != self.path:
            print_error("mmtrain", f"{self.path} stays as it was; the results so far are in {self._written_to}")


def _check(path: Path, flag: str, *, overwrite: bool) -> tuple[bool, bool]:
    """Whether `path` is a device or a pipe, and whether a file there is to be replaced."""
    if path.exists() and not path.is_dir() and not path.is_file():
        return True, False
    check_output_file(path, flag=flag, overwrite=overwrite, is_ours=_is_results, kind="a file of JSON lines")
    folder = Path(os.path.realpath(path)).parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{flag} is {os.fspath(path)!r}, but the folder {folder} cannot be written to; name another")
    return False, path.exists()


def _is_results(path: Path) -> bool:
    """Whether a file is empty or begins with a line that is a JSON object: never a picture, model or table."""
    with open(path, "rb") as file:
        line = file.readline(MAX_JSON_BYTES)
    try:
        return not line or isinstance(lenient_json(line), dict)
    except JsonError:
        return False
