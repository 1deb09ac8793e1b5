"""Where samples come from: tables, folders with texts beside the images, COCO annotations, tars of other tools."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from braceexpand import braceexpand

from data_tools.coco import coco_rows, json_content
from data_tools.fetch import FetchRules, fetch_file
from data_tools.rows import SCHEME, Row, Url, faulty, locate
from data_tools.splits import TOKEN_SUFFIX, flickr_rows, is_flickr_table, is_karpathy, karpathy_rows, token_rows
from data_tools.tables import TABLE_SUFFIXES, Columns, table_rows
from data_tools.tars import tar_rows
from mmtrain.data.index import DataError, find_shards

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# Named so that they are reported as left out and not passed over in silence.
OTHER_IMAGE_SUFFIXES = (".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jp2")
CAPTION_SUFFIX = ".txt"
COCO_SUFFIX = ".json"


@dataclass(frozen=True)
class SourceOptions:
    """How inputs are to be read."""

    columns: Columns = Columns()
    image_root: str | None = None  # folder or address that image names are seen from; None: where the table lies
    questions: tuple[tuple[str, str | None], ...] = ()  # VQA v2: files of questions, each with that of its annotations
    splits: tuple[str, ...] = ()  # of files that give each image one, as Karpathy's
    group: bool = False  # rows that name the same image become one sample with several captions


def read_rows(places: Sequence[str], options: SourceOptions, downloads: Path | None = None) -> list[Row]:
    """The samples of all inputs in their order (a folder: sorted by path), numbered from 0.

    Inputs behind an address are first fetched into the folder `downloads`. DataError where one cannot be read at all.
    """
    rows = (row for place in places for row in _rows_of(place, options, downloads))
    if options.group:
        rows = iter(_grouped(rows))
    return [replace(row, number=number) for number, row in enumerate(rows)]


def _rows_of(place: str, options: SourceOptions, downloads: Path | None) -> Iterator[Row]:
    if SCHEME.match(place) and not place.lower().startswith("file://"):
        return _remote_rows(place, options, downloads)
    path = locate(place, ".")
    assert isinstance(path, Path), "addresses were taken care of"
    if path.is_dir() and not any(path.glob("*.tar")):
        return _folder_rows(path)
    if path.is_dir() or path.suffix.lower() == ".tar" or any(sign in place for sign in "*?[{"):
        return tar_rows(find_shards([place], "INPUT"), options.columns.caption)
    root = options.image_root or str(path.parent)
    if path.suffix.lower() == COCO_SUFFIX:
        content = json_content(path)
        if is_karpathy(content):
            return karpathy_rows(path, content, root, options.splits, options.questions)
        return coco_rows(path, content, root, options.questions)
    if path.suffix.lower() == TOKEN_SUFFIX:
        return token_rows(path, root)
    if path.suffix.lower() == ".csv" and is_flickr_table(path):
        return flickr_rows(path, root, options.splits)
    if path.suffix.lower() in TABLE_SUFFIXES:
        return table_rows(path, options.columns, root)
    known = ", ".join([*TABLE_SUFFIXES, f"{COCO_SUFFIX} (COCO captions, Karpathy's splits)", TOKEN_SUFFIX, ".tar"])
    raise DataError(f"INPUT is {place!r}; wanted a folder of images or of shards, or a file that ends in {known}")


def _remote_rows(place: str, options: SourceOptions, downloads: Path | None) -> Iterator[Row]:
    """The rows of an input behind an address, or behind several that a {000..009} pattern names."""
    if downloads is None:
        raise DataError(f"INPUT {place!r} is an address, and there is no folder to fetch it into")
    for address in braceexpand(place):
        root = options.image_root or address.rpartition("/")[0]
        copy = fetch_file(Url(address), downloads, FetchRules())
        yield from _rows_of(str(copy), replace(options, image_root=root), None)


def _folder_rows(folder: Path) -> Iterator[Row]:
    """Images with the text of the same name, and texts whose image is missing."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES + OTHER_IMAGE_SUFFIXES]
    texts = {path.with_suffix(""): path for path in files if path.suffix.lower() == CAPTION_SUFFIX}
    stems = {image.with_suffix("") for image in images}
    alone = [path for stem, path in texts.items() if stem not in stems]
    for path in sorted(images + alone):
        source = str(path.relative_to(folder))
        if path.suffix.lower() == CAPTION_SUFFIX:
            yield faulty(source, "missing image")
            continue
        text = texts.get(path.with_suffix(""))
        yield Row(0, source, path, (text,) if text else ())


def _grouped(rows: Iterator[Row]) -> list[Row]:
    """Rows of one image joined where the first of them stands; facts are the first one's."""
    joined: dict[object, Row] = {}
    for number, row in enumerate(rows):
        name = number if row.image is None else row.image
        first = joined.get(name)
        joined[name] = replace(first, captions=first.captions + row.captions) if first else row
    return list(joined.values())
