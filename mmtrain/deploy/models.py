"""Hugging Face models of exports and runs, opened by the name of their folder."""

import tempfile
from pathlib import Path
from typing import TypeVar

import torch

from mmtrain.deploy.export import export_run
from mmtrain.hf.export_folder import CONFIG, load_export
from mmtrain.hf.generating import WithProcessor
from mmtrain.io.errors import InputError

Model = TypeVar("Model", bound=WithProcessor)


def load_model(folder: Path, kind: type[Model]) -> Model:
    """The model in an export, or of a run's newest checkpoint, in eval mode.

    InputError where `folder` is neither, or a file of it is missing or damaged.
    """
    if (folder / CONFIG).exists():
        return load_export(folder, kind)
    if not (folder / "checkpoints").exists():
        raise InputError(f"{folder} is no export (it has no {CONFIG}) and no run (it has no checkpoints)")
    with tempfile.TemporaryDirectory() as temporary:
        export = Path(temporary) / "export"
        try:
            export_run(folder, export, step=None, dtype=torch.float32)
        except OSError as error:
            if not str(error.filename or temporary).startswith(temporary):
                raise
            raise InputError(
                f"{folder} cannot be opened: its weights find no place in {temporary} ({error.strerror or error}); "
                f"set TMPDIR to a folder with room, or write an export once: mmtrain export {folder}"
            ) from error
        return load_export(export, kind)
