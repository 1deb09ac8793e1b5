"""The set that loaders are measured on: photo-like JPEGs of 256 to 512 pixels with captions, the same at every call."""

import io
import json
from pathlib import Path
from random import Random

from data_tools.pack import Sample, write_shard
from mmtrain.data.manifest import write_manifest
from tests.benchmarks.web_photos import draw_photo

SIDES = (256, 512)  # pixels
CROPS_PER_PHOTO = 20
PHOTO_PIXELS = 704
SHARD_SAMPLES = 500
FULL_COLOR_SHARE = 0.15  # 4:4:4; the rest has its color at half the resolution
WORDS = ("a", "the", "red", "green", "small", "large", "dog", "house", "tree", "river", "bird", "near", "under", "with")


def write_small_photos(folder: Path, count: int) -> Path:
    """Write `count` samples as WebDataset tars with indexes and a manifest into `folder`, unless they are there."""
    if (folder / "manifest.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    samples = [sample for photo in range(-(-count // CROPS_PER_PHOTO)) for sample in _samples(photo)][:count]
    Random(0).shuffle(samples)
    entries = [
        write_shard(folder / f"small-{start // SHARD_SAMPLES:06d}.tar", samples[start : start + SHARD_SAMPLES])
        for start in range(0, count, SHARD_SAMPLES)
    ]
    write_manifest(folder, entries, source="tests.benchmarks.small_photos", settings={"count": count}, statistics={})
    return folder


def _samples(photo: int) -> list[Sample]:
    rng = Random(photo)
    image = draw_photo(photo, (PHOTO_PIXELS, PHOTO_PIXELS), roughness=0.7)
    samples = []
    for number in range(CROPS_PER_PHOTO):
        width, height = rng.randint(*SIDES), rng.randint(*SIDES)
        left, top = rng.randint(0, PHOTO_PIXELS - width), rng.randint(0, PHOTO_PIXELS - height)
        written = io.BytesIO()
        image.crop((left, top, left + width, top + height)).save(
            written, "JPEG", quality=rng.randint(85, 95), subsampling=0 if rng.random() < FULL_COLOR_SHARE else 2
        )
        caption = " ".join(rng.choices(WORDS, k=rng.randint(6, 14)))
        key = f"{photo:05d}{number:02d}"
        files = {"jpg": written.getvalue(), "txt": caption.encode(), "json": json.dumps({"image_id": key}).encode()}
        samples.append(Sample(key, files))
    return samples
