"""Pictures by the names that people give them: files, folders and patterns."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mmtrain.data.sources import local_name
from mmtrain.io.errors import InputError
from mmtrain.io.folders import DEAD_LINK, FOLDER, Entry, walk_files
from mmtrain.io.image_codec import ImageError, decode_path
from mmtrain.io.paths import resolve, shown
from mmtrain.io.text import redact

# Some cannot be decoded everywhere (.avif, .heic, .jp2): they are named so, not passed over in silence.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".jp2")


def find_images(name: str) -> list[Path]:
    """The image files that a name means (`mmtrain.io.paths`), sorted; InputError where it means none.

    A file that is named is taken whatever its suffix. A folder means the images in it and in its sub-folders, a pattern
    the images that it matches, else all files that it matches, else the images of its folders. A dead link is among
    them: opening it says what it is.
    """
    try:
        found = resolve(local_name(name, "it"), "it")
        images = _images(found)
    except InputError as error:
        raise InputError(f"{shown(redact(name))} names no image: {error}") from error
    if not images:
        raise InputError(f"{shown(name)} names no image; give a file, a folder with images, or a pattern in quotes")
    return images


def _images(found: Sequence[Entry]) -> list[Path]:
    files = [entry for entry in found if entry.kind != FOLDER]
    # What a pattern matches beside images (texts, tables) is none.
    taken = [entry for entry in files if not entry.is_match or _is_image(entry.path.name)] or files
    entered = [entry.path for entry in found if entry.kind == FOLDER and not (entry.is_match and taken)]
    taken += [entry for folder in entered for entry in walk_files(folder, _is_image, "it")[0]]
    for entry in taken:
        if entry.kind != DEAD_LINK:
            entry.checked("it")  # reading a FIFO would wait for ever
    return sorted({entry.path for entry in taken})


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def opened(path: Path) -> Image.Image | str:
    """The picture in RGB, upright, or why there is none."""
    try:
        return Image.fromarray(decode_path(path))
    except ImageError as error:
        return str(error)
