"""Files that stand whole on the disk or not at all, and whether they still are what was written. No torch."""

import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PARTIAL = ".partial"
WRITTEN_TOGETHER = 2**20  # bytes
INSIDE = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}/)?[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}")


class HashedFile(io.BufferedWriter):
    """A new file that knows the sha256 of what was written to it; only ever written from front to back."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "w"), WRITTEN_TOGETHER)
        self._sha256, self._bytes = hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        self._sha256.update(data)
        self._bytes += memoryview(data).nbytes
        return super().write(data)

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        self.flush()
        os.fsync(self.fileno())

    @property
    def record(self) -> dict[str, Any]:
        """What the file must be when it is read."""
        return {"bytes": self._bytes, "sha256": self._sha256.hexdigest()}


def record_of(path: Path) -> dict[str, Any]:
    """What a file that stands is."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def faults_of(
    folder: Path, files: Mapping[str, Mapping[str, Any]], *, hashes: bool, part: int = 0, num_parts: int = 1
) -> Iterator[str]:
    """What is not as recorded in `files`; of the contents, which `hashes` asks for, only every `num_parts`-th file.

    Only regular files inside `folder` are looked at: a manifest that names others, or a link, is at fault.
    """
    for number, (name, wanted) in enumerate(sorted(files.items())):
        if not INSIDE.fullmatch(name):
            yield f"its manifest names {name!r:.80}, which is no file inside the checkpoint"
            continue
        path = folder / name
        try:
            if path.parent.is_symlink() and path.parent != folder:
                yield f"{path.parent.name} is a link; a checkpoint holds its own files"
                continue
            kind = path.lstat()
            size = kind.st_size
            if not stat.S_ISREG(kind.st_mode):
                yield f"{name} is a link or no regular file; a checkpoint holds its own files"
            elif size != wanted["bytes"]:
                yield f"{name} has {size} bytes instead of {wanted['bytes']}"
            elif hashes and number % num_parts == part and record_of(path)["sha256"] != wanted["sha256"]:
                yield f"{name} is corrupted: its sha256 is another one"
        except FileNotFoundError:
            yield f"{name} is missing"
        except OSError as fault:
            yield f"{name} cannot be read ({fault.strerror})"
