"""Pictures found by words: their features in one file, the nearest of them put in order by the match head.

Axes: N pictures of an index, E shared embedding, K candidates of a query.
"""

import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmtrain.deploy.pictures import opened
from mmtrain.hf import VLBertForImageTextRetrieval
from mmtrain.io.atomic import atomic_open
from mmtrain.io.command import naming
from mmtrain.io.documents import open_regular
from mmtrain.io.errors import InputError
from mmtrain.io.file_kinds import describe_file

SUFFIX = ".npz"
ARRAYS = ("paths", "embeddings", "space")


@dataclass(frozen=True)
class PictureIndex:
    """Features of pictures, as the arrays `embeddings` (float32 [N, E], unit length) and `paths` of a NumPy file."""

    paths: tuple[str, ...]
    embeddings_NE: np.ndarray
    space: str  # tells the shared space of one model from another's

    def save(self, file: Path) -> None:
        """Write it whole or not at all; numpy.load reads it, and nothing in it is pickled.

        Paths are made absolute: the index answers from any folder.
        """
        paths = np.array([os.path.abspath(path) for path in self.paths], np.str_)
        with naming(file), atomic_open(file) as out:
            np.savez(out, paths=paths, embeddings=self.embeddings_NE, space=np.str_(self.space))

    @classmethod
    def load(cls, file: Path, model: VLBertForImageTextRetrieval) -> "PictureIndex":
        """An index that was made with `model`; InputError where it is none, or another model's."""
        try:
            index = cls(*_read_arrays(file))
        except FileNotFoundError:
            raise InputError(f"{file} is no index: there is no such file; make one with --images") from None
        except Exception as error:  # zipfile, zlib and numpy raise nearly anything on damaged files
            reason = describe_file(file) if file.is_file() else None
            reason = None if reason is None or reason.startswith("a zip archive") else f"it is {reason}"
            raise InputError(
                f"{file} is no index that can be read ({reason or error}); make one with --images"
            ) from error
        if index.space != space_of(model):
            raise InputError(f"{file} was made with another model; make it anew with --images, or name that model")
        width = model.config.embedding_size
        if index.embeddings_NE.shape != (len(index.paths), width) or not np.isfinite(index.embeddings_NE).all():
            raise InputError(
                f"{file} is damaged: its embeddings are {list(index.embeddings_NE.shape)}, or hold what is no number; "
                f"wanted {[len(index.paths), width]}. Make it anew with --images"
            )
        return index


def index_path(path: Path, *, exists: bool) -> Path:
    """The file of the index `path`: with .npz at its end as NumPy writes it, or as it is where it `exists`."""
    return path if path.name.endswith(SUFFIX) or (exists and path.is_file()) else path.with_name(path.name + SUFFIX)


def is_index(file: Path) -> bool:
    """Whether a file holds the arrays of an index."""
    try:
        with open_regular(file) as content, zipfile.ZipFile(content) as archive:
            return set(archive.namelist()) == {f"{name}.npy" for name in ARRAYS}
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def without_repeats(paths: Iterable[Path]) -> list[Path]:
    """Each file once, by its absolute name, in the order of the first time."""
    return list({os.path.abspath(path): path for path in reversed(list(paths))}.values())[::-1]


def _read_arrays(file: Path) -> tuple[tuple[str, ...], np.ndarray, str]:
    with open_regular(file) as content, zipfile.ZipFile(content) as archive:
        # np.savez stores as it is: what is compressed is another's, and may be any size when it is unpacked.
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed, which an index never is")
    with np.load(file, allow_pickle=False) as found:
        paths, embeddings, space = (found[name] for name in ARRAYS)
    if paths.ndim != 1 or paths.dtype.kind != "U" or embeddings.dtype != np.float32 or space.dtype.kind != "U":
        raise ValueError(f"its arrays are {paths.dtype}, {embeddings.dtype} and {space.dtype}")
    return tuple(map(str, paths)), embeddings, str(space)


@dataclass(frozen=True)
class Indexed:
    """What became of one picture: its features, or why there are none."""

    path: Path
    embedding_E: np.ndarray | None
    fault: str | None = None


@dataclass(frozen=True)
class Found:
    """A picture that fits a query."""

    path: str
    probability: float  # that they belong together, by the match head
    similarity: float  # of the features, in [-1, 1]


def space_of(model: VLBertForImageTextRetrieval) -> str:
    """What stands for the space in which a model compares: no two trainings have the same."""
    weights = sorted(model.vlbert.contrast.state_dict().items())
    digest = hashlib.blake2b(digest_size=16)
    for _, weight in weights:
        digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def embed(model: VLBertForImageTextRetrieval, paths: Sequence[Path], *, batch_size: int) -> Iterator[Indexed]:
    """The features of each file, in order; one that cannot be read is named with the reason."""
    for start in range(0, len(paths), batch_size):
        batch = [(path, opened(path)) for path in paths[start : start + batch_size]]
        whole = [picture for _, picture in batch if not isinstance(picture, str)]
        found = iter(model.vlbert.get_image_features(model.pixels_of(whole)).cpu().numpy() if whole else ())
        for path, picture in batch:
            if isinstance(picture, str):
                yield Indexed(path, None, picture)
            else:
                yield Indexed(path, next(found))


@torch.no_grad()
def search(
    model: VLBertForImageTextRetrieval, index: PictureIndex, query: str, *, top: int, shortlist: int
) -> tuple[list[Found], list[Indexed]]:
    """The pictures that fit `query` best, best first, and those of the shortlist that are no longer to be read.

    Features name `shortlist` candidates; those are opened again, and ordered by what the match head believes plus
    similarity over temperature.
    """
    asked = model.needed_processor()(text=[query]).to(model.device)
    text_E = model.vlbert.get_text_features(**asked)[0].cpu()
    near_K = (torch.from_numpy(index.embeddings_NE) @ text_E).topk(min(max(shortlist, top), len(index.paths)))
    paths = [index.paths[number] for number in near_K.indices.tolist()]
    pictures = [opened(Path(path)) for path in paths]
    gone = [Indexed(Path(path), None, one) for path, one in zip(paths, pictures, strict=True) if isinstance(one, str)]
    whole = [place for place, picture in enumerate(pictures) if not isinstance(picture, str)]
    if not whole:
        return [], gone
    again = {name: ids.expand(len(whole), -1) for name, ids in asked.items()}
    logits_K2 = model(pixel_values=model.pixels_of([pictures[place] for place in whole]), **again).match_logits
    similar_K = near_K.values[whole]
    beliefs_K, sure_K = model.beliefs(logits_K2, similar_K.to(logits_K2.device))
    best = beliefs_K.argsort(descending=True, stable=True)[:top].tolist()
    return [Found(paths[whole[place]], float(sure_K[place]), float(similar_K[place])) for place in best], gone
