"""Pictures found by words: their features in one file, the nearest of them put in order by the match head.

Axes: N pictures of an index, E shared embedding, K candidates of a query.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.deploy.pictures import opened
from mmtrain.hf import VLBertForImageTextRetrieval

SUFFIX = ".npz"


@dataclass(frozen=True)
class PictureIndex:
    """Features of pictures, as the arrays `embeddings` (float32 [N, E], unit length) and `paths` of a NumPy file."""

    paths: tuple[str, ...]
    embeddings_NE: np.ndarray
    space: str  # tells the shared space of one model from another's

    def save(self, file: Path) -> None:
        """Write it; numpy.load reads it, and nothing in it is pickled."""
        np.savez(file, paths=np.array(self.paths, np.str_), embeddings=self.embeddings_NE, space=np.str_(self.space))

    @classmethod
    def load(cls, file: Path, model: VLBertForImageTextRetrieval) -> "PictureIndex":
        """An index that was made with `model`; CheckpointError where it is none, or another model's."""
        try:
            with np.load(file, allow_pickle=False) as found:
                index = cls(tuple(map(str, found["paths"])), found["embeddings"], str(found["space"]))
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{file} is no index that can be read ({error}); make one with --images") from None
        if index.space != space_of(model):
            raise CheckpointError(f"{file} was made with another model; make it anew with --images, or name that model")
        return index


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
        pictures = {path: opened(path) for path in paths[start : start + batch_size]}
        whole = [picture for picture in pictures.values() if not isinstance(picture, str)]
        found = iter(model.vlbert.get_image_features(model.pixels_of(whole)).cpu().numpy() if whole else ())
        for path, picture in pictures.items():
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
