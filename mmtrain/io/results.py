"""JSON Lines files of results, written line by line: an interruption loses nothing already shown. No torch.

Names of files are kept exactly: a byte that is not UTF-8 stands as the escape of its PEP 383 surrogate ("\\udcNN"), and
`os.fsencode` of the parsed text gives the name's bytes back.
"""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from mmtrain.io.atomic import publish, temporary_name
from mmtrain.io.command import naming
from mmtrain.io.console import print_error
from mmtrain.io.errors import InputError
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
        self._file: BinaryIO | None = None

    def write(self, row: dict[str, Any]) -> None:
        """Append `row` as a line, handed to the system."""
        with naming(self.path):
            file = self._opened()
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        with naming(self.path):
            file = self._opened()  # no result is an empty file
            if not self._is_special:
                os.fsync(file.fileno())
            file.close()
            if self._written_to != self.path:
                publish(self._written_to, Path(os.path.realpath(self.path)))

    def _opened(self) -> BinaryIO:
        if self._file is None:
            if self._replaces:
                self._written_to = temporary_name(Path(os.path.realpath(self.path)))
            self._file = self._written_to.open("wb" if self._is_special else "xb")
        return self._file

    def _abandon(self) -> None:
        if self._file is None:
            return
        self._file.close()
        if self._written_to != self.path:
            print_error("mmtrain", f"{self.path} stays as it was; the results so far are in {self._written_to}")


def _check(path: Path, flag: str, *, overwrite: bool) -> tuple[bool, bool]:
    """Whether `path` is a device or a pipe, and whether a file there is to be replaced."""
    if path.exists() and not path.is_dir() and not path.is_file():
        return True, False
    check_output_file(path, flag=flag, overwrite=overwrite)
    folder = Path(os.path.realpath(path)).parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{flag} is {os.fspath(path)!r}, but the folder {folder} cannot be written to; name another")
    return False, path.exists()
