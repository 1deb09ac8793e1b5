"""Pictures by the names that people give them: files, folders and patterns."""

from pathlib import Path

from PIL import Image

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))


def find_images(word: str) -> list[Path]:
    """The image files that a file, a folder or a pattern names, in order; FileNotFoundError where there are none."""
    place = Path(word)
    if place.is_dir():
        found = sorted(path for path in place.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    elif place.exists():
        found = [place]
    else:
        anchor = Path(place.anchor) if place.is_absolute() else Path()
        found = sorted(path for path in anchor.glob(str(place.relative_to(anchor))) if path.is_file())
    if not found:
        raise FileNotFoundError(f"{word!r} names no image; give a file, a folder with images, or a pattern in quotes")
    return found


def opened(path: Path) -> Image.Image | str:
    """The picture, or why there is none."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except Exception as error:  # on damaged files decoders raise nearly anything
        return str(error) or type(error).__name__
