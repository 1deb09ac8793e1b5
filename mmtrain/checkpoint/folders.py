"""The checkpoints of a run, folder by folder: which stand, in which order they are tried, which ones go. No torch."""

import os
import re
import shutil
from pathlib import Path

from mmtrain.checkpoint.files import PARTIAL
from mmtrain.io.atomic import atomic_write, remove_temporaries, sync_folder
from mmtrain.io.documents import DocumentError, read_document

LATEST = "latest"  # a file that names the newest checkpoint
REPLACED = ".replaced"  # an older checkpoint of the same step, until the newer one stands
REMOVED = ".removed"  # on its way out: no longer whole
MAX_LATEST_BYTES = 4096
STANDING = re.compile(r"step-(\d{8,})")


def folder_of(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimizer steps stands."""
    return checkpoints / f"step-{step:08d}"


def step_of(folder: Path) -> int | None:
    """After how many optimizer steps a checkpoint was taken; None for the name of anything else."""
    matched = STANDING.fullmatch(folder.name)
    return int(matched[1]) if matched else None


def partial_of(folder: Path) -> Path:
    """Where a checkpoint is written before it gets its name."""
    return folder.with_name(folder.name + PARTIAL)


def candidates(checkpoints: Path) -> list[Path]:
    """The checkpoints to go on from, in the order in which they are to be tried: what `latest` names, then the newest.

    Empty where there are none. Whether they are whole is not looked at.
    """
    folders = sorted(_folders(checkpoints), key=lambda folder: step_of(folder) or 0, reverse=True)
    standing = [folder for folder in folders if step_of(folder) is not None]
    named = _named_latest(checkpoints)
    return ([named] if named else []) + [folder for folder in standing if folder != named]


def unfinished(checkpoints: Path) -> list[Path]:
    """What saves that were cut off have left."""
    return sorted(folder for folder in _folders(checkpoints) if folder.name.endswith((PARTIAL, REMOVED)))


def mend(checkpoints: Path) -> None:
    """Give back its name to a checkpoint that was to be replaced by one that never came; sweep temporary files."""
    remove_temporaries(checkpoints)
    for folder in _folders(checkpoints):
        if folder.name.endswith(REPLACED):
            name = folder.with_name(folder.name.removesuffix(REPLACED))
            if name.exists():
                remove(folder)
            else:
                os.replace(folder, name)


def put_in_place(partial: Path, folder: Path) -> None:
    """Give a whole checkpoint its name. One that bore it before stands, under this name or another, until then."""
    replaced = folder.with_name(folder.name + REPLACED)
    if folder.exists():
        if os.path.lexists(replaced):
            remove(replaced)
        os.replace(folder, replaced)
    os.replace(partial, folder)
    sync_folder(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)  # what is left of it the next start removes (`mend`)


def point_to(folder: Path) -> None:
    """Let `latest` name `folder`."""
    atomic_write(folder.parent / LATEST, folder.name + "\n")


def drop_old(checkpoints: Path, keep_last: int, keep_every: int) -> None:
    """Remove all but the newest `keep_last` (0: none goes), every one at a multiple of `keep_every`, and `latest`."""
    if keep_last == 0:
        return
    named, *others = candidates(checkpoints)
    for folder in sorted(others, key=lambda folder: step_of(folder) or 0, reverse=True)[keep_last - 1 :]:
        step = step_of(folder)
        if step is not None and not (keep_every and step % keep_every == 0):
            removed = folder.with_name(folder.name + REMOVED)  # a kill amid the removal leaves no torn checkpoint
            os.replace(folder, removed)
            remove(removed)


def remove(folder: Path) -> None:
    """Remove a checkpoint; of one that is a link to a folder elsewhere the link alone."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def _folders(checkpoints: Path) -> list[Path]:
    return [path for path in checkpoints.iterdir() if path.is_dir()] if checkpoints.is_dir() else []


def _named_latest(checkpoints: Path) -> Path | None:
    try:
        content = read_document(checkpoints / LATEST, max_bytes=MAX_LATEST_BYTES)
    except (OSError, DocumentError):
        return None
    name = content.decode(errors="replace").strip()  # a loss of power leaves any bytes
    return checkpoints / name if STANDING.fullmatch(name) else None
