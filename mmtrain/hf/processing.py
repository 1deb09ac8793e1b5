"""Pictures and words to the tensors that the twin takes, and ids back to words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from mmtrain.hf.configuration import VLBertConfig
from mmtrain.hf.tokenization import VLBertTokenizer, tokenizer_of_folder

PROCESSOR_FILE = "processor_config.json"
MIDDLE_PIXEL = 127.5  # pixels become (value - middle) / middle, in [-1, 1]
MAX_ASPECT = 8  # a longer strip is cut to this around its middle before it is resized
Picture = Image.Image | np.ndarray | torch.Tensor


class VLBertImageProcessor(BaseImageProcessor):
    """As a run sees images: shorter side resized to `image_size` (antialiased bicubic), middle kept, in [-1, 1]."""

    model_input_names = ["pixel_values"]

    def __init__(self, image_size: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size

    def __call__(self, images: Picture | Sequence[Picture], **_: Any) -> BatchFeature:
        """Pictures, or uint8 arrays [H, W, 3] or tensors [3, H, W] -> `pixel_values` float32 [B, 3, size, size]."""
        several = list(images) if isinstance(images, (list, tuple)) else [images]
        if not several:
            raise ValueError("no images are given; wanted at least one")
        pixels_BCHW = torch.stack([self.fit(upright_pixels(image)) for image in several])
        return BatchFeature({"pixel_values": (pixels_BCHW.float() - MIDDLE_PIXEL) / MIDDLE_PIXEL})

    preprocess = __call__

    def fit(self, pixels_CHW: torch.Tensor) -> torch.Tensor:
        """uint8 [3, H, W] -> uint8 [3, size, size]."""
        size = self.image_size
        longest = MAX_ASPECT * min(pixels_CHW.shape[1:])
        pixels_CHW = middle(pixels_CHW, *(min(side, longest) for side in pixels_CHW.shape[1:]), rounds_up=False)
        sides = [size * side // min(pixels_CHW.shape[1:]) for side in pixels_CHW.shape[1:]]
        if sides != list(pixels_CHW.shape[1:]):
            channels_last = pixels_CHW[None].contiguous(memory_format=torch.channels_last)
            pixels_CHW = F.interpolate(channels_last, sides, mode="bicubic", antialias=True)[0]
        return middle(pixels_CHW, size, size, rounds_up=True).contiguous()


def middle(pixels_CHW: torch.Tensor, height: int, width: int, *, rounds_up: bool) -> torch.Tensor:
    """The middle [3, height, width]; where it cannot be exact, nearer to the top left, or rounded to the even pixel."""
    spare = [side - wanted for side, wanted in zip(pixels_CHW.shape[1:], (height, width), strict=True)]
    top, left = (round(gap / 2) if rounds_up else gap // 2 for gap in spare)
    return pixels_CHW[:, top : top + height, left : left + width]


def upright_pixels(image: Picture) -> torch.Tensor:
    """RGB uint8 [3, H, W]: turned as its EXIF says, on white where it is transparent."""
    if isinstance(image, torch.Tensor):
        pixels_CHW = image
    elif isinstance(image, np.ndarray):
        pixels_CHW = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    else:
        turned = ImageOps.exif_transpose(image)
        if turned.has_transparency_data:
            turned = Image.alpha_composite(Image.new("RGBA", turned.size, "white"), turned.convert("RGBA"))
        pixels_CHW = torch.from_numpy(np.array(turned.convert("RGB"))).permute(2, 0, 1)
    if pixels_CHW.dtype != torch.uint8 or pixels_CHW.shape[0] != 3:
        raise ValueError(
            f"an image is {tuple(pixels_CHW.shape)} of {pixels_CHW.dtype}; wanted a PIL picture, a uint8 array "
            "[H, W, 3] or a uint8 tensor [3, H, W]"
        )
    return pixels_CHW


def processor_of(tokenizer: Path, config: VLBertConfig) -> "VLBertProcessor":
    """What turns pictures and words into the tensors of a model; `tokenizer` is the file or the folder of its run."""
    if tokenizer.is_dir():
        words = tokenizer_of_folder(tokenizer, config)
    else:
        words = VLBertTokenizer(str(tokenizer), model_max_length=config.max_text_length)
    return VLBertProcessor(VLBertImageProcessor(image_size=config.image_size), words)


class VLBertProcessor(ProcessorMixin):
    """Image processor and tokenizer in one."""

    def __init__(self, image_processor: VLBertImageProcessor, tokenizer: Any, **kwargs: Any) -> None:
        super().__init__(image_processor, tokenizer, **kwargs)

    def __call__(
        self,
        images: Picture | Sequence[Picture] | None = None,
        text: str | Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        **_: Any,
    ) -> BatchFeature:
        """`pixel_values` of images, `input_ids` and `attention_mask` of texts: padded together, cut at `max_length`.

        The length defaults to what the model has positions for.
        """
        if images is None and text is None:
            raise ValueError("nothing is given; wanted images, text, or both")
        data: dict[str, torch.Tensor] = {}
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            length = max_length or self.tokenizer.model_max_length
            said = self.tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
            data |= {name: said[name] for name in ("input_ids", "attention_mask")}
        if images is not None:
            data |= self.image_processor(images)
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
