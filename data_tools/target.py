"""The folder that shards are written to: which of its files are ours, what may be replaced, how a set gets there.

A set is made complete in a folder of its own and then put in place: file by file, the manifest last, where the target
holds none; else by an exchange of the two folders, which keeps all that mmdata has not written.
"""

import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
from pyarrow.parquet import read_schema

from data_tools.left_out import LeftOut
from data_tools.pack import LEFT_OUT_NAME, MANIFEST_NAME, TABLE_NAME
from data_tools.table import SCHEMA
from mmtrain.data.index import DataError, ShardEntry, index_path, read_manifest
from mmtrain.data.sidecar import FORMAT as INDEX_FORMAT
from mmtrain.io.atomic import sync_folder, sync_tree, temporary_name
from mmtrain.io.documents import open_regular
from mmtrain.io.exchange import MARKER, finish_replacement, replace_folder, temporary_folders
from mmtrain.io.replace import check_output_folder, check_swappable, is_run

INDEX_SUFFIX = ".index"
_INDEX_MAGIC = INDEX_FORMAT.partition("/")[0].encode() + b"/"
_OUR_INDEX_NAME = re.compile(r"(shard|train|heldout)-\d{6,}\.tar\.index")
_LEFT_OUT_FIELDS = {one.name for one in fields(LeftOut)}


def check_target(
    folder: Path,
    *,
    overwrite: bool,
    inputs: Iterable[tuple[str, str | os.PathLike[str]]] = (),
    unfinished: Collection[str] = (),
) -> frozenset[str]:
    """The files of an old set in `folder` that a new one replaces; none without `overwrite`, or where there is none.

    DataError or StorageError where the new set would touch what exists: without `overwrite` any shard, manifest or
    table; with it those that mmdata has not written, inputs (pairs of flag and path), a run. `unfinished` names files
    that a build which was killed has put there already.
    """
    check_output_folder(folder, flag="OUT", overwrite=overwrite, inputs=inputs)
    if not folder.is_dir():
        return frozenset()
    if is_run(folder):
        raise DataError(f"{folder} is the folder of a run; name another folder to write shards to")
    there = {name for name in os.listdir(folder) if _is_of_a_set(name)} - set(unfinished)
    if not there:
        return frozenset()
    if not overwrite:
        raise DataError(f"{folder} already holds {_listed(there)}; name another folder or give --overwrite")
    owned = owned_files(folder)
    if foreign := there - owned:
        raise DataError(
            f"{folder} holds {_listed(foreign)} that mmdata has not written, as far as a {MANIFEST_NAME} there tells; "
            "--overwrite replaces nothing else: move it away, or name another folder"
        )
    check_swappable(folder, "OUT")
    return owned


def owned_files(folder: Path) -> frozenset[str]:
    """Names of the files in `folder` that mmdata has written, by what is in them.

    Shards are those that the manifest lists as built, not those that `mmdata index` has only indexed.
    """
    owned = {
        name
        for name in os.listdir(folder)
        if (name.endswith(INDEX_SUFFIX) and _is_our_index(folder / name))
        or (name == TABLE_NAME and _is_our_table(folder / name))
        or (name == LEFT_OUT_NAME and _is_our_list(folder / name))
    }
    try:
        manifest = read_manifest(folder)
    except DataError:
        # None there, or one of another tool: no shard is known to be ours.
        return frozenset(owned)
    built = {entry.name for entry in manifest.shards} - set(manifest.indexed)
    owned |= {MANIFEST_NAME} | {name for name in built if name.endswith(".tar")}
    return frozenset(owned)


def put_in_place(new: Path, folder: Path, *, overwrite: bool, unfinished: Collection[str] = ()) -> None:
    """Move the complete set `new` to `folder`; see the module. `unfinished` and DataError as of `check_target`."""
    if not os.path.lexists(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(new, folder)
        return
    if owned := check_target(folder, overwrite=overwrite, unfinished=unfinished):
        sync_tree(new)  # the old set is removed for it
        replace_folder(new, folder, owned)
        return
    last = (LEFT_OUT_NAME, TABLE_NAME, MANIFEST_NAME)
    for name in sorted(os.listdir(new), key=lambda name: (name in last and last.index(name) + 1, name)):
        os.replace(new / name, folder / name)
    sync_folder(folder)
    new.rmdir()


def check_index_names(shards: Iterable[Path]) -> None:
    """DataError where an index would replace a file that mmdata has not written."""
    for path in map(index_path, shards):
        if os.path.lexists(path) and not _is_our_index(path):
            raise DataError(f"{path} is there already and was not written by mmdata; move it away to index its shard")


@contextmanager
def new_set(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new folder to fill with a set, put in place of `folder` when the block ends; it vanishes when it raises."""
    finish_replacement(folder)
    check_target(folder, overwrite=overwrite)
    real = Path(os.path.realpath(folder))
    made = not real.parent.exists()
    real.parent.mkdir(parents=True, exist_ok=True)
    new = temporary_name(real)
    new.mkdir()
    try:
        yield new
        put_in_place(new, folder, overwrite=overwrite)
    except BaseException:
        if not (new / MARKER).exists():  # else it has changed places with the old set
            shutil.rmtree(new, ignore_errors=True)
        if made and not os.listdir(real.parent):
            real.parent.rmdir()
        raise


def restore_set(new: Path, folder: Path, entries: tuple[ShardEntry, ...]) -> None:
    """Give the complete set of these shards back its name `new` where a kill left it beside `folder`."""
    for place in [] if new.exists() else temporary_folders(Path(os.path.realpath(folder))):
        if not (place / MARKER).exists() and listed_in(place) == entries:
            os.rename(place, new)
            return


def listed_in(folder: Path) -> tuple[ShardEntry, ...]:
    """The shards that the manifest of `folder` lists; none where there is none, or another tool's."""
    try:
        return read_manifest(folder).shards
    except DataError:
        return ()


def put_already(folder: Path, entries: Iterable[ShardEntry]) -> frozenset[str]:
    """Which files of a finished set of these shards a build that was killed has put into `folder`: no manifest yet."""
    if os.path.lexists(folder / MANIFEST_NAME) or not folder.is_dir():
        return frozenset()
    shards = [entry for entry in entries if _has_size(folder / entry.name, entry.bytes)]
    names = {name for entry in shards for name in (entry.name, entry.name + INDEX_SUFFIX)}
    return frozenset(names | (owned_files(folder) if shards else set()))


def _is_our_index(path: Path) -> bool:
    """Whether a file is an index that mmdata has written, of whatever version."""
    try:
        with open_regular(path) as file:
            return file.read(len(_INDEX_MAGIC)) == _INDEX_MAGIC
    except OSError:
        return False


def _is_of_a_set(name: str) -> bool:
    """Whether a new set would write, or its readers would read, a file of that name."""
    is_shard = name.lower().endswith(".tar") and not name.startswith(".")
    return is_shard or name in (MANIFEST_NAME, TABLE_NAME, LEFT_OUT_NAME) or bool(_OUR_INDEX_NAME.fullmatch(name))


def _has_size(path: Path, num_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == num_bytes


def _listed(names: Collection[str]) -> str:
    shards = [name for name in names if name.endswith(".tar")]
    others = sorted(set(names) - set(shards) - {name + INDEX_SUFFIX for name in shards})
    said = [f"{len(shards)} shards ({min(shards)}{', ...' if len(shards) > 1 else ''})"] if shards else []
    return " and ".join([*said, *others[:3], *([f"{len(others) - 3} more"] if len(others) > 3 else [])])


def _is_our_table(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return read_schema(file).names == SCHEMA.names
    except (pa.ArrowException, OSError):
        return False


def _is_our_list(path: Path) -> bool:
    """Whether a left_out.jsonl is one: empty, or its first line has the fields of `LeftOut`."""
    try:
        with open_regular(path) as file:
            line = file.readline(1 << 20)
        return not line or set(json.loads(line)) == _LEFT_OUT_FIELDS
    except (OSError, ValueError, TypeError, RecursionError):
        return False
