"""Images on their way into a shard."""

import io

import pytest
from PIL import Image, ImageOps

from data_tools.images import ImageRules, prepare_image
from data_tools.left_out import Unusable
from mmtrain.io import image_codec


def picture(size=(40, 30), mode="RGB", color="red") -> Image.Image:
    """Left half in `color`, the rest white, so that turning can be seen."""
    made = Image.new(mode, size, "white")
    made.paste(Image.new(mode, (size[0] // 2, size[1]), color), (0, 0))
    return made


def encode(image: Image.Image, kind: str, **options) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def decode(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(("kind", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_an_image_that_needs_no_change_keeps_its_bytes(kind, extension):
    content = encode(picture(), kind)
    prepared = prepare_image(content, ImageRules(resize=30))
    assert (prepared.content, prepared.extension, prepared.size) == (content, extension, (40, 30))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_image_is_refused(kind):
    content = encode(Image.effect_noise((60, 60), 60).convert("RGB"), kind)
    with pytest.raises(Unusable) as caught:
        prepare_image(content[: len(content) * 2 // 3], ImageRules())
    assert caught.value.reason == "broken image"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"just some text", "not a JPEG, PNG or WebP image"),
        (encode(picture(), "GIF"), "not a JPEG, PNG or WebP image"),
    ],
)
def test_what_is_no_image_of_ours_is_refused(content, reason):
    with pytest.raises(Unusable) as caught:
        prepare_image(content, ImageRules())
    assert caught.value.reason == reason


def test_the_shorter_side_is_made_smaller_but_never_larger():
    large = encode(picture((200, 100)), "PNG")
    assert prepare_image(large, ImageRules(resize=50)).size == (100, 50)
    assert prepare_image(large, ImageRules(resize=101)).content == large


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("resize", [None, 20])
def test_a_turned_photo_is_set_upright_as_its_notes_say(orientation, resize):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(picture((80, 40)), "JPEG", exif=exif, quality=95)
    prepared = prepare_image(content, ImageRules(resize=resize))
    expected = ImageOps.exif_transpose(decode(content))
    if resize:
        expected = expected.resize(prepared.size)
    found = decode(prepared.content)
    assert found.size == expected.size == prepared.size
    assert found.getexif().get(0x0112, 1) == 1
    for place in ((2, 2), (found.width - 3, 2), (2, found.height - 3)):
        assert all(abs(a - b) < 40 for a, b in zip(found.getpixel(place), expected.getpixel(place), strict=True))


def test_transparent_parts_become_white():
    clear = Image.new("RGBA", (30, 30), (0, 0, 0, 0))
    prepared = prepare_image(encode(clear, "PNG"), ImageRules())
    assert prepared.extension == "jpg"
    assert decode(prepared.content).getpixel((15, 15)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_cut_off():
    deep = Image.new("I;16", (30, 30), 128 * 256)
    level = decode(prepare_image(encode(deep, "PNG"), ImageRules()).content).getpixel((15, 15))
    assert all(abs(value - 128) <= 2 for value in level)


def test_cmyk_becomes_rgb():
    prepared = prepare_image(encode(picture().convert("CMYK"), "JPEG"), ImageRules())
    assert decode(prepared.content).mode == "RGB"


def test_small_images_and_decompression_bombs_are_refused(monkeypatch):
    with pytest.raises(Unusable, match="too small"):
        prepare_image(encode(picture(), "PNG"), ImageRules(min_side=31))
    with pytest.raises(Unusable, match="too many pixels"):
        prepare_image(encode(Image.new("1", (16_000, 14_000)), "PNG"), ImageRules())
    monkeypatch.setattr(image_codec, "MAX_PIXELS", 1000)
    with pytest.raises(Unusable, match="too many pixels"):
        prepare_image(encode(picture(), "PNG"), ImageRules())
