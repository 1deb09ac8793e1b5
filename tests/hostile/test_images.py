"""Odd images: builder, training reader, held-out set, processor, commands and sheet see the same, or say the same."""

import io
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.images import ImageRules, prepare_image, upright_size
from data_tools.left_out import Unusable
from data_tools.report import captioned_images
from mmtrain.config.schema import DataConfig, MlmConfig, ModelConfig
from mmtrain.data.heldout import HeldOut
from mmtrain.data.images import check, decode
from mmtrain.data.places import Access
from mmtrain.data.samples import Look, Sample, SampleReader
from mmtrain.data.shards import open_shards
from mmtrain.data.table import SampleTable
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.deploy.pictures import opened
from mmtrain.hf.processing import VLBertImageProcessor
from mmtrain.io.image_codec import ImageError
from tests.hostile.odd_images import SIDE, OddImage, all_images, encode, exif, stored, with_segments
from tests.unit.data.made import caption_of, train_tokenizer, write_tar

IMAGES = all_images()
Seen = np.ndarray | str  # pixels [SIDE, SIDE, 3], or why there are none
CONSUMERS = ("reader", "reader without images", "heldout", "builder", "processor", "picture", "command", "sheet")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Seen]]:
    """What each consumer makes of each image."""
    folder = tmp_path_factory.mktemp("odd")
    keys = {name: f"k{number:04d}" for number, name in enumerate(IMAGES)}
    members = {
        keys[name]: {one.extension: one.content, "txt": caption_of(number).encode()}
        for number, (name, one) in enumerate(IMAGES.items())
    }
    shard = write_tar(folder / "odd-000000.tar", members)
    tokenizer = Tokenizer(train_tokenizer(folder / "t.model", [caption_of(number) for number in range(200)]))
    found = _trained_on(shard, tokenizer) | {"heldout": _held_out(shard, tokenizer, keys)}
    processor, files = VLBertImageProcessor(image_size=SIDE), folder / "files"
    files.mkdir()
    for name, one in IMAGES.items():
        (files / f"{keys[name]}.{one.extension}").write_bytes(one.content)
    path_of = {name: files / f"{keys[name]}.{one.extension}" for name, one in IMAGES.items()}
    found["builder"] = {name: _outcome(_built, one.content) for name, one in IMAGES.items()}
    found["processor"] = {name: _outcome(_processed, processor, str(path)) for name, path in path_of.items()}
    found["picture"] = {name: _outcome(_opened_by_user, processor, path) for name, path in path_of.items()}
    found["command"] = {name: _outcome(opened, path) for name, path in path_of.items()}
    sheet = dict(zip(IMAGES, captioned_images([shard]), strict=True))
    found["sheet"] = {
        name: one.pixels_HWC if one.caption == caption_of(number) else one.caption
        for number, (name, one) in enumerate(sheet.items())
    }
    return found


def _outcome(work: Callable, *words: object) -> Seen:
    try:
        found = work(*words)
    except Unusable as error:
        return f"{error.reason} ({error.detail})" if error.detail else error.reason
    except (ValueError, OSError) as error:
        return str(error)
    return found if isinstance(found, str) else np.asarray(found)


def _built(content: bytes) -> Image.Image:
    prepared = prepare_image(content, ImageRules())
    assert prepared.size == upright_size(prepared.content) == upright_size(content)
    return Image.fromarray(decode(prepared.content).permute(1, 2, 0).numpy())


def _opened_by_user(processor: VLBertImageProcessor, path: Path) -> Seen:
    try:
        picture = Image.open(path)
    except Exception as error:  # Pillow's own, before the processor sees anything
        return str(error)
    return _processed(processor, picture)


def _processed(processor: VLBertImageProcessor, picture: object) -> np.ndarray:
    pixels = processor(picture)["pixel_values"][0].permute(1, 2, 0).numpy()
    return np.rint(pixels * 127.5 + 127.5).astype(np.uint8)


def _trained_on(shard: Path, tokenizer: Tokenizer) -> dict[str, dict[str, Seen]]:
    access = Access(DataConfig())
    table = SampleTable(open_shards((str(shard),), access, "data.train"), access)
    found: dict[str, dict[str, Seen]] = {"reader": {}, "reader without images": {}}
    for name, needed in (("reader", True), ("reader without images", False)):
        reader = SampleReader(table, tokenizer, 0, Look(SIDE, is_needed=needed), 20, 0.15)
        for number, case in enumerate(IMAGES):
            sample = reader.read(number)
            if not isinstance(sample, Sample):
                found[name][case] = sample.reason
            elif needed:
                found[name][case] = sample.image_CHW.permute(1, 2, 0).numpy()
    return found


def _held_out(shard: Path, tokenizer: Tokenizer, keys: dict[str, str]) -> dict[str, Seen]:
    model = ModelConfig(image_size=SIDE, patch_size=8, max_text_length=20)
    data = DataConfig(heldout=str(shard), max_bad_share=1.0)
    heldout = HeldOut(data, model, MlmConfig(), tokenizer, seed=0, num_pairs=len(IMAGES))
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log = logging.getLogger("mmtrain.data")
    log.addHandler(handler)
    try:
        batch = next(iter(heldout.batches(len(IMAGES), trim=False)))
    finally:
        log.removeHandler(handler)
    reasons = {key: line.split(f"{key}: ", 1)[1] for key in keys.values() for line in lines if f" {key}: " in line}
    images = batch.images_BCHW.permute(0, 2, 3, 1).numpy()
    return {name: reasons.get(key, images[number]) for number, (name, key) in enumerate(keys.items())}


@pytest.mark.parametrize("name", IMAGES)
def test_all_consumers_see_the_same_or_say_the_same(name: str, seen: dict[str, dict[str, Seen]]) -> None:
    one = IMAGES[name]
    found = {consumer: seen[consumer][name] for consumer in CONSUMERS if name in seen[consumer]}
    if isinstance(one.expected, str):
        _all_refuse(one, found)
        return
    assert all(isinstance(pixels, np.ndarray) for pixels in found.values()), found
    for consumer, pixels in found.items():
        # A builder may write a file anew as a JPEG; all others see its very pixels.
        tolerance = max(one.tolerance, 5.0) if consumer == "builder" else one.tolerance
        difference = np.abs(pixels.astype(int) - one.expected).mean()
        assert difference <= tolerance, f"{consumer}: {difference}"
        assert consumer == "builder" or np.array_equal(pixels, found["reader"]), consumer


def _all_refuse(one: OddImage, found: dict[str, Seen]) -> None:
    assert list(found) == list(CONSUMERS) and all(isinstance(words, str) for words in found.values()), found
    words = found["reader"]
    assert re.match(one.expected, words) and "\n" not in words and "0x" not in words.partition("begins")[0]
    for consumer in ("reader without images", "heldout", "builder", "sheet"):
        assert found[consumer] == words
    # The list of formats is a longer one for files than for shards.
    ends = words if not words.startswith("not a ") else words.partition(" or WebP image")[2]
    for consumer in ("processor", "command"):
        assert found[consumer].endswith(ends)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_of_the_index_are_those_that_are_shown(kind: str, orientation: int) -> None:
    content = encode(stored(orientation).crop((0, 0, 40, 24)), kind, exif=exif(orientation))
    height, width = decode(content).shape[1:]
    assert upright_size(content) == (width, height) == ((24, 40) if orientation >= 5 else (40, 24))
    prepared = prepare_image(content, ImageRules(resize=12))
    assert prepared.size == upright_size(prepared.content) == ((12, 20) if orientation >= 5 else (20, 12))


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF"])
def test_other_documented_formats_are_for_files_alone(kind: str, tmp_path: Path) -> None:
    image = stored(1).quantize(64) if kind == "GIF" else stored(1)
    path = tmp_path / "picture.jpg"
    path.write_bytes(encode(image, kind))
    shown = np.asarray(image.convert("RGB"))
    assert np.array_equal(np.asarray(opened(path)), shown)
    assert np.array_equal(_processed(VLBertImageProcessor(image_size=SIDE), path), shown)
    for refuse in (decode, check):
        with pytest.raises(ImageError, match="not a JPEG, PNG or WebP image"):
            refuse(path.read_bytes())
    with pytest.raises(Unusable, match="not a JPEG, PNG or WebP image"):
        prepare_image(path.read_bytes(), ImageRules())


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "TIFF of tiff_lzw", "TIFF of tiff_deflate", "TIFF of jpeg"])
def test_a_cut_file_of_another_format_is_refused(kind: str, share: float, tmp_path: Path) -> None:
    name, _, compression = kind.partition(" of ")
    written = io.BytesIO()
    image = stored(1).quantize(64) if kind == "GIF" else stored(1)
    image.save(written, name, **({"compression": compression} if compression else {}))
    path = tmp_path / "picture.tif"
    path.write_bytes(written.getvalue()[: int(len(written.getvalue()) * share)])
    assert re.match(r"broken image \(|not a JPEG, PNG, WebP, BMP, GIF or TIFF image \(", str(opened(path)))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "TIFF I;16", "TIFF I"])
def test_grey_of_16_bits_is_scaled_in_every_mode(mode: str, tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, SIDE * SIDE).reshape(SIDE, SIDE)
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode.removeprefix("TIFF ")]
    image = Image.fromarray(levels.astype(dtype))
    if mode.startswith("TIFF"):
        image = Image.open(io.BytesIO(encode(image, "TIFF")))
    processor = VLBertImageProcessor(image_size=SIDE)
    assert abs(_processed(processor, image).mean() - 127.5) < 0.1
    path = tmp_path / "grey.tif"
    image.save(path, "TIFF")
    assert abs(np.asarray(opened(path)).mean() - 127.5) < 0.1


@pytest.mark.parametrize("mode", ["PA", "La", "RGBa", "HSV", "YCbCr", "LAB", "RGBX", "CMYK"])
def test_pictures_of_rare_modes_are_seen(mode: str) -> None:
    white = {"LAB": (255, 128, 128), "HSV": (0, 0, 255), "YCbCr": (255, 128, 128), "CMYK": (0, 0, 0, 0)}
    picture = Image.new(mode, (SIDE, SIDE), white.get(mode, 0 if mode in ("PA", "La") else (0, 0, 0, 0)))
    if mode == "RGBX":
        picture = Image.new(mode, (SIDE, SIDE), (255, 255, 255, 0))
    assert _processed(VLBertImageProcessor(image_size=SIDE), picture).min() >= 253


@pytest.mark.parametrize("picture", [
    Image.new("F", (8, 8), 0.5), Image.fromarray(np.full((8, 8), 70_000, np.int32)),
    Image.fromarray(np.full((8, 8), -1, np.int32)), Image.fromarray(np.full((8, 8), 200, np.int32)),
    Image.new("RGB", (0, 0)),
], ids=["float", "beyond 16 bits", "below 0", "of 8 bits in 32", "no pixels"])  # fmt: skip
def test_pictures_without_a_stated_range_are_refused(picture: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unsupported pixels|broken image") as caught:
        VLBertImageProcessor(image_size=8)(picture)
    if picture.width:
        picture.save(tmp_path / "p.tif")
        assert opened(tmp_path / "p.tif") == str(caught.value)


def test_a_picture_turned_by_the_user_is_not_turned_again() -> None:
    from PIL import ImageOps

    content = with_segments(encode(stored(6), "JPEG"), b"")
    lying = Image.open(io.BytesIO(encode(stored(6), "JPEG", exif=exif(6))))
    shown = _processed(VLBertImageProcessor(image_size=SIDE), lying)
    for turned in (ImageOps.exif_transpose(Image.open(io.BytesIO(encode(stored(6), "JPEG", exif=exif(6))))), lying):
        if turned is lying:
            ImageOps.exif_transpose(turned, in_place=True)
        assert np.abs(_processed(VLBertImageProcessor(image_size=SIDE), turned).astype(int) - shown).max() <= 3
    assert decode(content).shape == (3, SIDE, SIDE)
