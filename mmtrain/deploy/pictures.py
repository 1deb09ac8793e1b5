"""Pictures and models by the names that people give them: files, folders and patterns; exports and runs."""

import json
import tempfile
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image

from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.deploy.export import export_run
from mmtrain.hf.configuration import VLBertConfig
from mmtrain.hf.generating import WithProcessor

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
Twin = TypeVar("Twin", bound=WithProcessor)


def open_twin(place: Path, kind: type[Twin]) -> Twin:
    """The twin in an export, or of a run's newest checkpoint; FileNotFoundError where it is neither.

    CheckpointError where it is another's model, or its tokenizer another's.
    """
    if (place / "config.json").exists():
        return _loaded(place, kind)
    if not (place / "checkpoints").exists():
        raise FileNotFoundError(f"{place} is no export (it has no config.json) and no run (it has no checkpoints)")
    with tempfile.TemporaryDirectory() as folder:
        export_run(place, Path(folder) / "export", step=None, dtype=torch.float32)
        return _loaded(Path(folder) / "export", kind)


def _loaded(export: Path, kind: type[Twin]) -> Twin:
    said = json.loads((export / "config.json").read_text()).get("model_type")
    if said != VLBertConfig.model_type:
        raise CheckpointError(f"{export} is a model of type {said!r}; wanted an export ({VLBertConfig.model_type})")
    model = kind.from_pretrained(export).eval()
    num_pieces = len(model.needed_processor().tokenizer)
    if num_pieces != model.config.num_pieces:
        raise CheckpointError(
            f"the tokenizer in {export} has {num_pieces} pieces, but the model was trained with one of "
            f"{model.config.num_pieces}; bring back its own, or export it anew"
        )
    return model


def find_images(word: str) -> list[Path]:
    """The image files that a file, a folder or a pattern names, in order; FileNotFoundError where there are none."""
    place = Path(word)
    if place.is_dir():
        found = sorted(path for path in place.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    elif place.exists():
        found = [place]
    else:
        anchor = Path(place.anchor) if place.is_absolute() else Path()
        found = sorted(path for path in anchor.glob(str(place.relative_to(anchor))) if path.is_file())
    if not found:
        raise FileNotFoundError(f"{word!r} names no image; give a file, a folder with images, or a pattern in quotes")
    return found


def opened(path: Path) -> Image.Image | str:
    """The picture, or why there is none."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except Exception as error:  # on damaged files decoders raise nearly anything
        return str(error) or type(error).__name__
