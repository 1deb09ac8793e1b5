"""What the cache of generation saves: time of a caption with it and without, by search and by shape.

python -m tests.benchmarks.generation
"""

import time
from typing import Any

import torch

from mmtrain.config.schema import ItcConfig, ModelConfig
from mmtrain.hf import VLBertConfig, VLBertForImageCaptioning

SHAPES = {
    "demo (4.9 M), 17 image tokens, 20 text tokens": (
        {"hidden_size": 192, "num_heads": 3, "image_size": 64, "patch_size": 16, "max_text_length": 24}, 50, 20,
    ),
    "384 wide, 197 image tokens, 40 text tokens": (
        {
            "hidden_size": 384, "num_heads": 6, "image_size": 224, "patch_size": 16, "max_text_length": 48,
            "vision_layers": 6, "text_layers": 3, "fusion_layers": 3,
        }, 8, 40,
    ),
}  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {"greedy": {"num_beams": 1}, "4 beams": {"num_beams": 4}}


def seconds(model: VLBertForImageCaptioning, pixels: torch.Tensor, **how: Any) -> tuple[float, torch.Tensor]:
    """Time of captions of all pixels, and the captions; every one has full length, so that ends decide nothing."""
    started = time.perf_counter()
    ids = model.generate(pixels, min_length=how["max_length"], do_sample=False, **how)
    return time.perf_counter() - started, ids


def main() -> None:
    """Print one line for each shape and search."""
    torch.set_num_threads(1)
    for name, (shape, num_images, length) in SHAPES.items():
        torch.manual_seed(0)
        config = VLBertConfig.of(ModelConfig(init_std=0.06, **shape), ItcConfig(), vocab_size=512, num_pieces=500)
        model = VLBertForImageCaptioning(config).eval()
        pixels = torch.rand(num_images, 3, shape["image_size"], shape["image_size"]) * 2 - 1
        for way, how in WAYS.items():
            found = [
                seconds(model, pixels, max_length=length, use_cache=cache, **how)
                for cache in (True, False, True, False)
            ]
            kept, again = min(found[0][0], found[2][0]), min(found[1][0], found[3][0])
            same = torch.equal(found[0][1], found[1][1])
            print(
                f"{name}, {way}: {kept / num_images * 1000:.1f} ms an image with the cache, "
                f"{again / num_images * 1000:.1f} without: {again / kept:.1f} times faster; same tokens: {same}"
            )


if __name__ == "__main__":
    main()
