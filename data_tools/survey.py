"""What shards hold, counted: image sizes, caption lengths, words; surveys of the parts add up to that of the whole."""

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from data_tools.images import image_extension
from mmtrain.data.index import Part, ShardIndex, open_index, read_part
from mmtrain.io.image_codec import ImageError, read_size


@dataclass
class Survey:
    """Counts over some samples."""

    num_samples: int = 0
    num_bytes: int = 0  # of the tars
    extensions: Counter[str] = field(default_factory=Counter)
    image_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # width, height in pixels
    image_kibibytes: Counter[int] = field(default_factory=Counter)  # size of an image file, rounded down -> images
    caption_words: Counter[int] = field(default_factory=Counter)  # words of a caption -> captions
    caption_digests: set[bytes] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def add(self, other: "Survey") -> None:
        """Take in another part of the set."""
        self.num_samples += other.num_samples
        self.num_bytes += other.num_bytes
        self.extensions += other.extensions
        self.image_sizes += other.image_sizes
        self.image_kibibytes += other.image_kibibytes
        self.caption_words += other.caption_words
        self.caption_digests |= other.caption_digests
        self.words |= other.words
        self.faults += other.faults

    def record(self) -> dict[str, object]:
        """The figures for manifest.json."""
        widths = Counter(width for width, _ in self.image_sizes.elements())
        heights = Counter(height for _, height in self.image_sizes.elements())
        return {
            "files": dict(sorted(self.extensions.items())),
            "num_captions": self.caption_words.total(),
            "num_distinct_captions": len(self.caption_digests),
            "num_words": len(self.words),
            "caption_words": spread(self.caption_words),
            "image_width": spread(widths),
            "image_height": spread(heights),
        }

    def enter(self, extension: str, size: tuple[int, int], captions: Sequence[str]) -> None:
        """Count one sample of an image, a .txt with the first caption if there is any, and a .json."""
        self.num_samples += 1
        self.extensions.update((extension, *["txt"] * bool(captions), "json"))
        self.image_sizes[size] += 1
        for caption in captions[:1]:
            self.enter_caption(caption)

    def enter_caption(self, caption: str) -> None:
        """Count one caption."""
        words = caption.lower().split()
        self.caption_words[len(words)] += 1
        self.words.update(word.strip(".,;:!?\"'()") for word in words)
        self.caption_digests.add(hashlib.blake2b(caption.encode(), digest_size=8).digest())


def survey_shard(path: Path) -> Survey:
    """Survey one tar; images are measured by their headers and not decoded."""
    index = open_index(path)
    survey = Survey(num_bytes=path.stat().st_size, faults=[str(fault) for fault in index.faults])
    for key, parts in zip(index.keys, index.parts, strict=True):
        survey.num_samples += 1
        survey.extensions.update(parts.keys())
        _enter_caption(survey, index, parts)
        _enter_image(survey, index, key, parts)
    return survey


def spread(values: Counter[int]) -> dict[str, float] | None:
    """Least, middle, mean and largest of counted values; None where there are none."""
    if not values:
        return None
    ordered, count = sorted(values.items()), values.total()
    up_to = list(accumulate(times for _, times in ordered))
    median = ordered[bisect_left(up_to, count / 2)][0]
    mean = sum(value * times for value, times in ordered) / count
    return {"least": ordered[0][0], "median": median, "mean": round(mean, 2), "largest": ordered[-1][0]}


def _enter_caption(survey: Survey, index: ShardIndex, parts: dict[str, Part]) -> None:
    if "txt" not in parts:
        return
    survey.enter_caption(read_part(index.path, parts["txt"]).decode("utf-8", "replace"))


def _enter_image(survey: Survey, index: ShardIndex, key: str, parts: dict[str, Part]) -> None:
    extension = image_extension(parts)
    if extension is None:
        return
    try:
        survey.image_sizes[read_size(read_part(index.path, parts[extension]))] += 1
        survey.image_kibibytes[parts[extension].size >> 10] += 1
    except ImageError as error:
        survey.faults.append(f"{index.path.name}: {key}: {error}")
