"""The folder of an export as an output: what may be replaced by it, and how it gets in place. No torch."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from mmtrain.io.atomic import sync_tree, temporary_name
from mmtrain.io.errors import StorageError
from mmtrain.io.exchange import MARKER, finish_replacement, replace_folder
from mmtrain.io.replace import check_output_folder, is_run

MODEL_TYPE = "vlbert"  # in config.json
# What an export writes: config and card, weights, and what transformers saves of tokenizers and processors.
FILES = (
    "config.json", "generation_config.json", "README.md", "training.yaml",
    "model.safetensors", "model.safetensors.index.json", "model-?????-of-?????.safetensors",
    "processor_config.json", "preprocessor_config.json", "tokenizer.model", "*token*.json", "vocab.json", "vocab.txt",
    "merges.txt", "chat_template.jinja", MARKER,
)  # fmt: skip


def check_export_output(run_dir: Path, out: Path, *, overwrite: bool) -> None:
    """StorageError where an export of `run_dir` may not be written to `out`: before any work, nothing is changed.

    With `overwrite` only another export goes: a folder with a config.json of ours and no file besides those of FILES.
    """
    finish_replacement(out)
    check_output_folder(
        out,
        flag="--out",
        overwrite=overwrite,
        inputs=[("the run", run_dir)],
        is_ours=lambda folder: not foreign_in(folder),
        kind=f"an export ({_why(out)})" if out.is_dir() else "an export",
    )


@contextmanager
def new_export(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new folder to fill with an export, which becomes `out` when the block ends and vanishes when it raises."""
    real = Path(os.path.realpath(out))
    real.parent.mkdir(parents=True, exist_ok=True)
    new = temporary_name(real)
    new.mkdir()
    try:
        yield new
        sync_tree(new)
        old = set(os.listdir(real)) if real.exists() else set()
        if old and (not overwrite or foreign_in(real)):
            raise StorageError(f"{out} has been written to by another process meanwhile; name another folder")
        replace_folder(new, real, old)
    finally:
        if not (new / MARKER).exists():  # else it has changed places with the old export
            shutil.rmtree(new, ignore_errors=True)


def foreign_in(folder: Path) -> str:
    """Why `folder` is no export, or holds what none has written; empty where it is one and holds nothing else."""
    if is_run(folder):
        return "it is the folder of a run"
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        return "it has no config.json"
    except (OSError, ValueError, RecursionError):
        return "its config.json cannot be read"
    if not isinstance(config, dict) or config.get("model_type") != MODEL_TYPE:
        return "its config.json is of another model"
    for entry in os.scandir(folder):
        is_ours = any(fnmatchcase(entry.name, pattern) for pattern in FILES)
        if not is_ours or not entry.is_file(follow_symlinks=False):
            return f"it holds {entry.name}"
    return ""


def _why(out: Path) -> str:
    return foreign_in(out) or "it is one"
