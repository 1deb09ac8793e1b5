"""The folder .work of an unfinished build: what is done of it, so that a killed build goes on where it stopped.

plan.json               what is built, by which rules
chunk-000000.images     bytes of the prepared images, one after another
chunk-000000.records    a line per row; written after the images, so that its being there means both are whole
shard-000000.json       the manifest's line of a finished shard
set/                    the new set of shards until it is complete and put in place
inputs/                 copies of inputs behind addresses
lock                    held by whoever builds or merges; shared by parts
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from data_tools.records import Record, from_line, to_line
from mmtrain.data.index import DataError, ShardEntry
from mmtrain.io.atomic import atomic_open, atomic_write
from mmtrain.io.locks import LockHeldError, file_lock

NAME = ".work"
FORMAT = "mmdata-work/2"
LOCK_SECONDS = 2.0  # a build that was killed may hold the lock for a moment more
PLAN_NAME, LOCK_NAME, SET_NAME, INPUTS_NAME = "plan.json", "lock", "set", "inputs"
_OWN_NAME = re.compile(
    rf"{PLAN_NAME}|{LOCK_NAME}|{SET_NAME}|{INPUTS_NAME}|chunk-\d{{6,}}\.(images|records)|shard-\d{{6,}}\.json|\..+\.partial"
)
_ENTRY_NAME = re.compile(r"shard-(\d{6,})\.json")


@dataclass(frozen=True)
class Plan:
    """What is built."""

    fingerprint: str  # of rows and settings: another input or other rules give another one
    num_rows: int
    rows_per_chunk: int
    source: Any  # for the manifest
    settings: dict[str, Any]
    against: tuple[str, ...]  # earlier sets whose images count as seen

    @property
    def num_chunks(self) -> int:
        """Chunks of rows; the last may be shorter."""
        return -(-self.num_rows // self.rows_per_chunk)


class Workshop:
    """The files of an unfinished build."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exists(self) -> bool:
        """Whether a build was begun here and not finished."""
        return (self.folder / PLAN_NAME).exists()

    @property
    def set_folder(self) -> Path:
        """Where the new set is made complete."""
        return self.folder / SET_NAME

    @property
    def inputs_folder(self) -> Path:
        """Where inputs are fetched to."""
        return self.folder / INPUTS_NAME

    def check_own(self) -> None:
        """DataError where the folder holds what no build has written: it is emptied when a build is done."""
        if not os.path.lexists(self.folder):
            return
        names = [] if self.folder.is_symlink() or not self.folder.is_dir() else os.listdir(self.folder)
        foreign = [name for name in names if not _OWN_NAME.fullmatch(name)]
        if foreign or (names and LOCK_NAME not in names) or not self.folder.is_dir() or self.folder.is_symlink():
            first = f" ({min(foreign)})" if foreign else ""
            raise DataError(
                f"{self.folder}{first} was not written by mmdata, which keeps unfinished work under that name; move it "
                "away, or name another folder"
            )

    def open(self, plan: Plan, *, overwrite: bool = False) -> None:
        """Begin, or go on with the same plan; with `overwrite` in place of another one, else DataError."""
        if self.exists() and not self._holds(plan, overwrite=overwrite):
            if not overwrite:
                raise DataError(
                    f"{self.folder.parent} holds an unfinished build of another input or with other settings; "
                    "give those again to go on with it, name another folder, or give --overwrite"
                )
            self.clear()
        if not self.exists():
            content = {"format": FORMAT, **asdict(plan)}
            atomic_write(self.folder / PLAN_NAME, json.dumps(content, indent=1))

    def _holds(self, plan: Plan, *, overwrite: bool) -> bool:
        try:
            return self.read_plan() == plan
        except DataError:
            if overwrite:
                return False
            raise

    def read_plan(self) -> Plan:
        """What is built here; DataError where nothing is."""
        path = self.folder / PLAN_NAME
        try:
            content = json.loads(path.read_bytes())
            if content.pop("format") != FORMAT:
                raise DataError(f"{path} has another format than {FORMAT!r}; give --overwrite to start anew")
            return Plan(**content | {"against": tuple(content["against"])})
        except FileNotFoundError as error:
            raise DataError(f"{self.folder.parent} holds no unfinished build; `mmdata build` begins one") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error}); give --overwrite to start anew") from error

    @contextmanager
    def locked(self, *, shared: bool) -> Iterator[None]:
        """Keep others from the same work meanwhile; parts share it. DataError where somebody is at it."""
        made = not os.path.lexists(self.folder.parent)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with file_lock(self.folder / LOCK_NAME, shared=shared, timeout_seconds=LOCK_SECONDS):
                try:
                    yield
                    self._tidy(shared=shared, made=False)
                except BaseException:
                    self._tidy(shared=shared, made=made)
                    raise
        except LockHeldError as error:
            place = self.folder.parent
            raise DataError(f"another mmdata is at work on {place}; wait for it, or end it") from error

    def _tidy(self, *, shared: bool, made: bool) -> None:
        """Leave no empty folders of a build that did not begin."""
        if shared or not self.folder.is_dir() or os.listdir(self.folder) != [LOCK_NAME]:
            return
        self._remove_folder()
        if made and not os.listdir(self.folder.parent):
            self.folder.parent.rmdir()

    def images_path(self, chunk: int) -> Path:
        """Where the images of a chunk lie."""
        return self.folder / f"chunk-{chunk:06d}.images"

    def has_chunk(self, chunk: int) -> bool:
        """Whether a chunk is prepared."""
        return self._records_path(chunk).exists()

    @contextmanager
    def new_images(self, chunk: int) -> Iterator[BinaryIO]:
        """A file for the images of a chunk, under its name when all are written."""
        with atomic_open(self.images_path(chunk), durable=False) as file:
            yield file

    def write_records(self, chunk: int, records: Sequence[Record]) -> None:
        """Say what became of the rows of a chunk; from here on it is prepared."""
        lines = "".join(to_line(record) + "\n" for record in records)
        atomic_write(self._records_path(chunk), lines, durable=False)

    def read_records(self, chunk: int) -> list[Record]:
        """What became of the rows of a chunk."""
        with open(self._records_path(chunk), encoding="utf-8") as lines:
            return [from_line(line) for line in lines]

    def write_entry(self, number: int, entry: ShardEntry) -> None:
        """Note that a shard is finished."""
        atomic_write(self._entry_path(number), json.dumps(asdict(entry)), durable=False)

    def read_entry(self, number: int) -> ShardEntry | None:
        """The finished shard of this number, None where there is none."""
        try:
            return ShardEntry(**json.loads(self._entry_path(number).read_bytes()))
        except FileNotFoundError:
            return None

    def entries(self) -> tuple[ShardEntry, ...]:
        """The finished shards, in the order of their numbers."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        numbers = sorted(int(found[1]) for name in names if (found := _ENTRY_NAME.fullmatch(name)))
        return tuple(entry for number in numbers if (entry := self.read_entry(number)))

    def forget_images(self, chunk: int) -> None:
        """The images of a chunk are in finished shards."""
        self.images_path(chunk).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all that was done, the plan last, and keep the lock."""
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name == PLAN_NAME):
            if path.name != LOCK_NAME and _OWN_NAME.fullmatch(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def remove(self) -> None:
        """The build is finished; as long as the plan is there, a call that was killed here can be told so."""
        self.clear()
        self._remove_folder()

    def _remove_folder(self) -> None:
        (self.folder / LOCK_NAME).unlink(missing_ok=True)
        self.folder.rmdir()

    def _records_path(self, chunk: int) -> Path:
        return self.folder / f"chunk-{chunk:06d}.records"

    def _entry_path(self, number: int) -> Path:
        return self.folder / f"shard-{number:06d}.json"
