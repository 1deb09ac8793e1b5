import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from mmtrain.data.augment import fit, jitter, mirror, random_crop, resize
from mmtrain.data.draws import Purpose, generator
from mmtrain.data.images import ImageError, decode
from tests.unit.data.made import picture


def scene(width: int, height: int, seed: int) -> Image.Image:
    """Soft noise with hard edges over it, as in a photograph."""
    numbers = np.random.default_rng(seed)
    image = Image.fromarray(numbers.integers(0, 256, (height, width, 3), np.uint8)).filter(ImageFilter.GaussianBlur(3))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = numbers.integers(0, width), numbers.integers(0, height)
        draw.ellipse((x, y, x + 40, y + 30), fill=tuple(numbers.integers(0, 256, 3).tolist()))
    return image


def pillow_fit(image: Image.Image, size: int) -> np.ndarray:
    shorter = min(image.size)
    width, height = (size * side // shorter for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


@pytest.mark.parametrize("shape", [(256, 256), (389, 300), (300, 512), (160, 120)])
def test_resizing_agrees_with_pillow_to_60_db(shape: tuple[int, int]):
    for seed in range(3):
        content = io.BytesIO()
        scene(*shape, seed).save(content, "PNG")
        ours = fit(decode(content.getvalue()), (224, 224)).numpy().astype(float)
        reference = pillow_fit(Image.open(content), 224).astype(float)
        error = np.mean((ours - reference) ** 2)
        assert 10 * np.log10(255**2 / max(error, 1e-9)) >= 60


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_kind_of_image_decodes_to_what_pillow_reads(kind: str):
    content = io.BytesIO()
    scene(90, 60, 1).save(content, kind)
    ours = decode(content.getvalue())
    reference = np.array(Image.open(content).convert("RGB")).transpose(2, 0, 1)
    assert ours.dtype == torch.uint8 and ours.shape == (3, 60, 90)
    assert np.abs(ours.numpy().astype(int) - reference).max() <= 3


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "1", "LA", "RGBA"])
def test_images_of_other_modes_become_rgb(mode: str):
    content = io.BytesIO()
    Image.new(mode, (8, 8)).save(content, "JPEG" if mode in ("L", "CMYK") else "PNG")
    assert decode(content.getvalue()).shape == (3, 8, 8)


def test_what_is_transparent_becomes_white():
    content = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(content, "PNG")
    assert decode(content.getvalue()).unique().tolist() == [255]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_cut_image_is_refused(kind: str):
    content = picture(1, (64, 64), kind)
    for share in (0.0, 0.02, 0.5, 0.8):
        with pytest.raises(ImageError, match="broken image|empty file|not a JPEG"):
            decode(content[: int(share * len(content))])


def test_text_and_noise_are_refused():
    for content in (b"not an image", b"\xff\xd8 not an image", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(1000)):
        with pytest.raises(ImageError):
            decode(content)


def test_an_image_that_promises_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mmtrain.io.image_codec.MAX_PIXELS", 100)
    for kind in ("JPEG", "PNG"):
        with pytest.raises(ImageError, match="too many pixels .16 x 16"):
            decode(picture(1, kind=kind))


def test_an_image_of_the_right_size_is_not_touched():
    pixels = decode(picture(3, (32, 32), "PNG"))
    assert torch.equal(fit(pixels, (32, 32)), pixels)


def test_a_very_long_strip_is_fitted_without_filling_the_memory():
    assert fit(torch.zeros(3, 1, 60_000, dtype=torch.uint8), (64, 64)).shape == (3, 64, 64)


def test_random_crops_differ_by_their_numbers_and_keep_their_share():
    pixels = decode(picture(5, (80, 60), "PNG"))
    crops = [random_crop(pixels, (32, 32), 0.3, generator(0, Purpose.CROP, 0, sample)) for sample in (1, 2, 1)]
    assert torch.equal(crops[0], crops[2]) and not torch.equal(crops[0], crops[1])
    assert all(crop.shape == (3, 32, 32) and crop.dtype == torch.uint8 for crop in crops)


def test_a_crop_that_fits_nowhere_keeps_the_largest_box_in_the_middle():
    strip = torch.arange(300, dtype=torch.uint8).expand(3, 9, 300)
    expected = resize(strip[:, :, 144:156], 8, 8)
    assert torch.equal(random_crop(strip, (8, 8), 1.0, generator(0, Purpose.CROP)), expected)


def test_half_of_the_images_are_mirrored_but_none_whose_caption_names_a_side():
    pixels = decode(picture(5, (8, 8), "PNG"))
    for caption, expected in (("a bright leaf", 0.5), ("a dog Left of a cat", 0.0), ("the rightmost one", 0.0)):
        flipped = [
            torch.equal(mirror(pixels, caption, generator(0, Purpose.FLIP, 0, sample)), pixels.flip(2))
            for sample in range(400)
        ]
        assert np.mean(flipped) == pytest.approx(expected, abs=0.08 if expected else 0)


def test_the_module_reads_a_file_that_only_pillow_forgives(tmp_path: Path):
    whole = picture(2, (32, 32))
    padded = whole[:-2] + b"\x00" * 3 + whole[-2:]  # extraneous bytes before the end mark
    assert decode(padded).shape == (3, 32, 32)


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGB")])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_on_its_side_is_shown_upright(kind: str, mode: str, orientation: int):
    content, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    scene(96, 64, 4).convert(mode).save(content, kind, exif=exif, quality=95)
    with Image.open(content) as image:
        expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    found = decode(content.getvalue()).permute(1, 2, 0).numpy()
    assert found.shape == expected.shape == ((64, 96, 3) if orientation < 5 else (96, 64, 3))
    assert np.abs(found.astype(int) - expected).max() <= 3


def test_damaged_exif_leaves_a_whole_image_as_it_is_stored():
    content = io.BytesIO()
    scene(96, 64, 4).save(content, "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert decode(content.getvalue()).shape == (3, 64, 96)


def test_color_jitter_changes_an_image_within_its_share_and_never_without_it():
    pixels = decode(picture(3, (32, 32), "PNG"))
    changed = [jitter(pixels, 0.4, generator(0, Purpose.COLOR, 0, sample)) for sample in range(20)]
    assert all(image.dtype == torch.uint8 and image.shape == pixels.shape for image in changed)
    means = [float(image.float().mean()) / float(pixels.float().mean()) for image in changed]
    assert 0.55 < min(means) < 0.9 and 1.05 < max(means) < 1.45
    assert torch.equal(jitter(pixels, 0.0, generator(0, Purpose.COLOR)), pixels)
