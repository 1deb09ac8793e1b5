"""The image codec: what is decoded by which decoder, what it costs, and what is refused before it is decoded."""

import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from mmtrain.io import image_codec
from mmtrain.io.errors import ImageError
from mmtrain.io.image_codec import FILE_FORMATS, check, decode, decode_path, decode_picture, read_size
from mmtrain.io.jpeg import read_metadata
from mmtrain.io.orientation import exif_orientation, stated_orientation, turn_upright, xmp_orientation


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def noise(size: tuple[int, int] = (48, 32)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))


def tiff(order: str, kind: int, count: int, value: bytes, tag: int = 0x0112) -> bytes:
    """An EXIF block with one field."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    return b"Exif\0\0" + start + struct.pack(f"{order}HHHI", 1, tag, kind, count) + value.ljust(4, b"\0") + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(3, "H"), (4, "I"), (8, "h"), (9, "i")])
def test_an_orientation_is_read_in_any_integer_type(order: str, kind: int, code: str):
    block = tiff(order, kind, 1, struct.pack(f"{order}{code}", 6))
    notes = Image.Exif()
    notes.load(block)
    assert exif_orientation(block) == notes[0x0112] == 6


@pytest.mark.parametrize("block", [
    b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0junk", tiff("<", 3, 1, b"\0"), tiff("<", 3, 1, b"\x09"),
    tiff("<", 2, 4, b"6\0\0\0"), tiff("<", 3, 0, b"\6"), tiff("<", 4, 9, b"\xff\xff\xff\xff"),
    tiff("<", 1, 1, b"\6"), tiff("<", 3, 1, b"\6", tag=0x0100), tiff("<", 3, 1, b"\6")[:16],
    b"Exif\0\0II*\0\xff\xff\xff\xff",
])  # fmt: skip
def test_exif_that_states_no_orientation_is_passed_over(block: bytes):
    assert exif_orientation(block) is None
    assert stated_orientation([block, tiff(">", 3, 1, b"\0\3")], []) == 3
    assert stated_orientation([block], [b"<a tiff:Orientation='8'/>"]) == 8


@pytest.mark.parametrize(("packet", "expected"), [
    (b'tiff:Orientation="6"', 6), (b"<tiff:Orientation>3</tiff:Orientation>", 3), ("tiff:Orientation = '8'", 8),
    (b'tiff:Orientation="9"', None), (b'tiff:Orientation="12"', None), (b"exif:Orientation='6'", None), (b"", None),
])  # fmt: skip
def test_an_orientation_is_read_from_xmp(packet: bytes | str, expected: int | None):
    assert xmp_orientation(packet) == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pixels_are_those_of_pillow(orientation: int):
    from PIL import ImageOps

    image = noise()
    image.getexif()[0x0112] = orientation
    turned = turn_upright(np.asarray(image), orientation)
    padded = turn_upright(np.asarray(image.convert("RGBA")), orientation)
    assert np.array_equal(padded[:, :, :3], turned) and padded.flags.c_contiguous
    assert turned.flags.c_contiguous and np.array_equal(turned, np.asarray(ImageOps.exif_transpose(image)))


def test_decoders_agree_to_the_bit():
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}):
        content = encode(noise(), **options)
        assert np.array_equal(decode(content), np.asarray(Image.open(io.BytesIO(content))))
        loaded = Image.open(io.BytesIO(content))
        loaded.load()
        for picture in (loaded, Image.open(io.BytesIO(content))):
            assert np.array_equal(decode_picture(picture), decode(content))
        assert np.array_equal(decode(memoryview(content)), decode(content))


def test_a_picture_that_was_asked_to_be_small_stays_small():
    picture = Image.open(io.BytesIO(encode(noise((256, 256)))))
    picture.draft("RGB", (64, 64))
    assert decode_picture(picture).shape == (64, 64, 3)


def test_the_header_walk_ends_at_the_scan_and_looks_at_no_pixel():
    plain = encode(noise())
    scan = plain.index(b"\xff\xda")
    assert read_metadata(plain) == read_metadata(plain[: scan + 10] + bytes(10)) == (1, 1)
    many = encode(noise(), progressive=True)
    assert 5 < read_metadata(many).num_scans <= image_codec.MAX_SCANS


@pytest.mark.parametrize("content", [b"\xff\xd8\xff" * 9, b"\xff\xd8\xff\xe1", b"\xff\xd8" + b"\xff\xe1\0\0" * 9, b""])
def test_the_header_walk_takes_any_bytes(content: bytes):
    assert read_metadata(content) == (1, 1)


def test_scans_of_a_baseline_jpeg_are_counted_where_they_are_read():
    content = encode(noise(), subsampling=0)
    start = content.index(b"\xff\xda")
    scans = b"".join(b"\xff\xda\0\x08\x01" + bytes((number, 0x11, 0, 63, 0)) for number in (1, 2, 3))
    bomb = content[:start] + scans * 30 + b"\xff\xd9"
    with pytest.raises(ImageError, match="too many scans .90 in a JPEG, at most 64"):
        check(bomb)
    again = content[:-2] + content[start:-2] * 80 + content[-2:]  # not read by libjpeg: its first scan is of all colors
    assert read_metadata(again).num_scans == 1


def test_no_program_is_started_for_the_bytes_of_a_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def ghostscript(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n%%EndComments\n"
    (tmp_path / "a.jpg").write_bytes(content)
    for refuse in (
        lambda: decode(content),
        lambda: check(content),
        lambda: decode(content, FILE_FORMATS),
        lambda: read_size(content),
        lambda: decode_path(tmp_path / "a.jpg"),
        lambda: decode_picture(Image.open(io.BytesIO(content))),
    ):
        with pytest.raises(ImageError, match="not a JPEG, PNG.* image"):
            refuse()


@pytest.mark.parametrize(("content", "words"), [
    (b"", "empty file"),
    (b"version https://git-lfs.github.com/spec/v1\n", "it is a git-lfs pointer"),
    (b"<!DOCTYPE html><html>", "it is an HTML page"),
    (b"\x1f\x8b" + bytes(20), "it is compressed with gzip"),
    (b"\x89PNG\r\n\x1a\n", "broken image .its header cannot be read"),
    (b"RIFF\0\0\0\0WEBPVP8 ", "broken image"),
    (b"just text", "begins with b'just tex'"),
])  # fmt: skip
def test_what_is_no_image_is_named(content: bytes, words: str):
    with pytest.raises(ImageError, match=words):
        decode(content)


def test_an_error_goes_whole_through_a_pipe():
    error = pickle.loads(pickle.dumps(ImageError("too many pixels", "3 x 4")))
    assert (str(error), error.reason, error.detail) == ("too many pixels (3 x 4)", "too many pixels", "3 x 4")


def test_a_size_is_read_without_decoding(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(image_codec, "load_image", lambda image: pytest.fail("decoded"))
    for kind in ("JPEG", "PNG", "WEBP"):
        assert read_size(encode(noise(), kind)) == (48, 32)
