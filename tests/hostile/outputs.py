"""What tests of outputs share: everything below a folder, refusals, and small inputs."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.hostile.conftest import Ended

Command = Callable[..., Ended]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; links by where they lead."""
    return {
        str(path.relative_to(folder)): os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def check_refused(ended: Ended, *fragments: str) -> None:
    assert ended.code == 2, (ended.out, ended.err)
    assert ended.err.count("\n") == 1 and all(fragment in ended.err for fragment in fragments), ended.err


def build_words(table: Path, out: Path, *words: object) -> list[object]:
    return ["build", table, out, "--processes", "1", "--samples-per-shard", "2", *words]


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def linked(path: Path, target: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)
    return path
