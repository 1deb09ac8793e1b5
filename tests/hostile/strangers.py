"""Runs and exports as a stranger would hand them out: valid in every checksum, with one thing planted in them."""

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmtrain.checkpoint.manifest import CHECKSUM, _checksum


class Touch:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def pickled(marker: Path) -> bytes:
    return pickle.dumps({"state_dict_metadata": Touch(marker)})


def torch_file(marker: Path) -> bytes:
    """A file of torch.save whose pickle does the same."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Touch(marker), protocol=2))
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
    return out.getvalue()


def checkpoint_of(run: Path) -> Path:
    (folder,) = (run / "checkpoints").glob("step-*")
    return folder


def seal(folder: Path, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
    """Write the manifest of a checkpoint anew: sizes and checksums of its files as they are, then `change`."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.pop(CHECKSUM)
    for name, record in manifest["files"].items():
        if (folder / name).is_file():
            content = (folder / name).read_bytes()
            record |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    change(manifest)
    path.write_text(json.dumps(manifest | {CHECKSUM: _checksum(manifest)}))


def change_index(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the first tensor's entry in the index of a checkpoint, and seal it."""
    folder = checkpoint_of(run)
    path = folder / "tensors" / "index.json"
    index = json.loads(path.read_text())
    change(index["tensors"][sorted(index["tensors"])[0]])
    path.write_text(json.dumps(index))
    seal(folder)


def say_of_data(run: Path, text: str) -> None:
    """Let config.yaml of a run end with these lines in place of its section `data`."""
    path = run / "config.yaml"
    path.write_text(path.read_text().partition("\ndata:")[0] + "\n" + text)
