"""Pictures and words to the tensors that the twin takes, and ids back to words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from mmtrain.hf.configuration import VLBertConfig
from mmtrain.hf.tokenization import VLBertTokenizer, tokenizer_of_folder
from mmtrain.io.image_codec import ImageError, decode_path, decode_picture
from mmtrain.io.text import printable
from mmtrain.io.utf8_paths import is_utf8
from mmtrain.pixels import fit, normalize

PROCESSOR_FILE = "processor_config.json"
RETURN_TENSORS = ("pt", "np", None)
Picture = Image.Image | np.ndarray | torch.Tensor | str | Path
Pictures = Picture | Iterable[Picture]


class VLBertImageProcessor(BaseImageProcessor):
    """As a run sees images: shorter side resized to `image_size` (antialiased bicubic), middle kept, in [-1, 1]."""

    model_input_names = ["pixel_values"]

    def __init__(self, image_size: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size

    def __call__(self, images: Pictures, *, return_tensors: str | None = "pt", **_: Any) -> BatchFeature:
        """Pictures -> `pixel_values` float32 [B, 3, size, size], in the order that is given.

        A picture is a Pillow image, the path of a file, a uint8 array [H, W, 3] or a uint8 tensor [3, H, W]; several
        are any iterable of them, an array [B, H, W, 3] or a tensor [B, 3, H, W]. `return_tensors` is "pt", "np", or
        None for a list of arrays. ValueError for anything else; ImageError where a picture cannot be decoded.
        """
        if return_tensors is not None:
            return_tensors = str(getattr(return_tensors, "value", return_tensors))  # transformers' TensorType
        if return_tensors not in RETURN_TENSORS:
            raise ValueError(f"return_tensors is {return_tensors!r}; wanted one of {RETURN_TENSORS}")
        sides = (self.image_size, self.image_size)
        fitted = [fit(picture_pixels(image), sides) for image in each_picture(images)]
        if not fitted:
            raise ValueError("no images are given; wanted at least one")
        pixels_BCHW = normalize(torch.stack(fitted))
        match return_tensors:
            case "np":
                return BatchFeature({"pixel_values": pixels_BCHW.numpy()})
            case None:
                return BatchFeature({"pixel_values": list(pixels_BCHW.numpy())})
        return BatchFeature({"pixel_values": pixels_BCHW})

    preprocess = __call__


def is_one_picture(images: Pictures) -> bool:
    """Whether this is one picture, and not a batch of them."""
    return isinstance(images, (Image.Image, str, Path)) or getattr(images, "ndim", None) in (2, 3)


def each_picture(images: Pictures) -> Iterator[Picture]:
    """The pictures one by one; ValueError for what holds none."""
    if is_one_picture(images):
        yield images
    elif isinstance(images, (bytes, dict)) or not isinstance(images, Iterable) or getattr(images, "ndim", 4) != 4:
        raise ValueError(f"images are {_described(images)}; wanted {_WANTED}, or several of these")
    else:
        yield from images


def picture_pixels(image: Picture) -> torch.Tensor:
    """RGB uint8 [3, H, W]: upright, on white where it is transparent; ValueError for what is no picture."""
    if isinstance(image, Image.Image):
        pixels_HWC = decode_picture(image)
    elif isinstance(image, (str, Path)):
        pixels_HWC = _decode_file(image)
    else:
        pixels_HWC = _array_HWC(image)
    return torch.from_numpy(pixels_HWC).permute(2, 0, 1)


_WANTED = "a PIL picture, the path of a file, a uint8 array [H, W, 3] or a uint8 tensor [3, H, W]"


def _decode_file(name: str | Path) -> np.ndarray:
    try:
        return decode_path(Path(name))
    except ImageError as error:
        raise ValueError(f"{str(name)[:200]}: {error}") from error


def _array_HWC(image: Any) -> np.ndarray:
    is_tensor = isinstance(image, torch.Tensor)
    if not is_tensor and not isinstance(image, np.ndarray):
        raise ValueError(f"an image is {_described(image)}; wanted {_WANTED}")
    channels = image.shape[0 if is_tensor else -1] if image.ndim == 3 else 0
    if image.dtype != (torch.uint8 if is_tensor else np.uint8) or channels != 3 or 0 in image.shape:
        raise ValueError(f"an image is {_described(image)}; wanted {_WANTED}")
    return image.detach().cpu().permute(1, 2, 0).numpy() if is_tensor else np.require(image, requirements="CW")


def _described(image: Any) -> str:
    shape = f"{tuple(image.shape)} of {image.dtype}" if isinstance(image, (np.ndarray, torch.Tensor)) else ""
    kind = "array" if isinstance(image, np.ndarray) else "tensor"
    return f"{kind} {shape}" if shape else f"a {type(image).__name__}"


def processor_of(tokenizer: Path, config: VLBertConfig) -> "VLBertProcessor":
    """What turns pictures and words into the tensors of a model; `tokenizer` is the file or the folder of its run."""
    if tokenizer.is_dir():
        words = tokenizer_of_folder(tokenizer, config)
    else:
        words = VLBertTokenizer(str(tokenizer), model_max_length=config.max_text_length)
    return VLBertProcessor(VLBertImageProcessor(image_size=config.image_size), words)


def each_text(text: str | Sequence[str]) -> list[str]:
    """One text or several as a list; ValueError where there is none, or something else."""
    if isinstance(text, (bytes, Mapping)) or not isinstance(text, (str, Iterable)):
        raise ValueError(f"text is a {type(text).__name__}; wanted a string, or several")
    texts = [text] if isinstance(text, str) else list(text)
    if not texts:
        raise ValueError("no texts are given; wanted at least one")
    for one in texts:
        if not isinstance(one, str):
            raise ValueError(f"a text is {one!r}; wanted a string")
        if not is_utf8(one):
            raise ValueError(f"a text is '{printable(one)[:80]}', which holds a lone surrogate; wanted Unicode text")
    return texts


class VLBertProcessor(ProcessorMixin):
    """Image processor and tokenizer in one."""

    def __init__(self, image_processor: VLBertImageProcessor, tokenizer: Any, **kwargs: Any) -> None:
        super().__init__(image_processor, tokenizer, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """As of any processor of transformers, but code that a folder brings along is not asked for."""
        return super().from_pretrained(pretrained_model_name_or_path, **({"trust_remote_code": False} | kwargs))

    def __call__(
        self,
        images: Pictures | None = None,
        text: str | Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        return_tensors: str | None = "pt",
        **_: Any,
    ) -> BatchFeature:
        """`pixel_values` of images, `input_ids` and `attention_mask` of texts: padded together, cut at `max_length`.

        The length defaults to what the model has positions for. `return_tensors` is "pt", "np", or None for lists.
        """
        if images is None and text is None:
            raise ValueError("nothing is given; wanted images, text, or both")
        data: dict[str, Any] = {}
        if text is not None:
            texts = each_text(text)
            length = max_length or self.tokenizer.model_max_length
            said = self.tokenizer(
                texts, padding=True, truncation=True, max_length=length, return_tensors=return_tensors
            )
            data |= {name: said[name] for name in ("input_ids", "attention_mask")}
        if images is not None:
            data |= self.image_processor(images, return_tensors=return_tensors)
        return BatchFeature(data)

    def prompts(self, texts: Sequence[str], *, ends: bool = False, room: int = 0) -> BatchFeature:
        """Beginnings of texts to be written on, all ending at the same place: [PAD] stands before the shorter ones.

        With `ends`, each is a whole text with its [SEP], and what follows is another: an answer behind its question.
        Each leaves `room` tokens of what the model has positions for.
        """
        whole = self(text=list(texts), max_length=self.tokenizer.model_max_length - room)
        lengths = whole["attention_mask"].sum(dim=1).tolist()
        rows = [ids[: length if ends else length - 1] for ids, length in zip(whole["input_ids"], lengths, strict=True)]
        most = max(len(row) for row in rows)
        data = {
            "input_ids": [F.pad(row, (most - len(row), 0), value=self.tokenizer.pad_token_id) for row in rows],
            "attention_mask": [F.pad(torch.ones_like(row), (most - len(row), 0)) for row in rows],
        }
        return BatchFeature({name: torch.stack(column) for name, column in data.items()})

    @property
    def model_input_names(self) -> list[str]:
        """What the model is given."""
        return [*self.tokenizer.model_input_names, *self.image_processor.model_input_names]
