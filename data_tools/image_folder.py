"""Folders of images with a text of the same name beside each (as open_clip's and img2dataset's users keep them)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_tools.rows import Row, faulty
from mmtrain.io.folders import FILE, Entry

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# Named so that they are reported as left out and not passed over in silence.
OTHER_IMAGE_SUFFIXES = (".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jp2")
ANY_IMAGE_SUFFIX = IMAGE_SUFFIXES + OTHER_IMAGE_SUFFIXES
CAPTION_SUFFIX = ".txt"


def is_image(name: str) -> bool:
    """Whether a file is taken as an image, by its suffix in letters of any case."""
    return name.lower().endswith(ANY_IMAGE_SUFFIX)


def is_text(name: str) -> bool:
    """Whether a file is taken as a caption."""
    return name.lower().endswith(CAPTION_SUFFIX)


def image_rows(folder: Path, entries: Sequence[Entry]) -> Iterator[Row]:
    """Images with the text of the same name, texts whose image is missing, and links that lead nowhere.

    `entries`: what `walk_files` has found below `folder`, sorted by path. What cannot be opened is named, never opened.
    """
    texts = {entry.path.with_suffix(""): entry for entry in entries if is_text(entry.path.name)}
    stems = {entry.path.with_suffix("") for entry in entries if is_image(entry.path.name)}
    for entry in entries:
        source, stem = str(entry.path.relative_to(folder)), entry.path.with_suffix("")
        if is_text(entry.path.name):
            if stem not in stems:
                yield faulty(source, "missing image")
        elif entry.kind != FILE:
            yield faulty(source, "missing file", f"{source} is {entry.described()}")
        elif (text := texts.get(stem)) and text.kind != FILE:
            yield faulty(source, "caption cannot be read", f"{text.path.name} is {text.described()}")
        else:
            yield Row(0, source, entry.path, (text.path,) if text else ())
