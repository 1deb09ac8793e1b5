"""Odd image files for the tests: each shows the same scene, or must be refused for a reason.

All are SIDE pixels square, so that training at that size resizes nothing.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

SIDE = 48
LOSSY = 5.0  # mean difference in levels that JPEG and WebP may make
STORED_BY = {  # how an upright image is laid into a file with this orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class OddImage:
    """A file, and what is right: pixels, uint8 [SIDE, SIDE, 3], up to a mean difference, or a reason."""

    content: bytes
    extension: str
    expected: np.ndarray | str
    tolerance: float = 0.0


def scene() -> np.ndarray:
    """Smooth ramps, different along each side, so that a turn shows: uint8 [SIDE, SIDE, 3]."""
    ramp = np.linspace(0, 255, SIDE).astype(np.uint8)
    blue = np.add.outer(ramp, ramp.astype(int)) // 2
    return np.stack([np.tile(ramp, (SIDE, 1)), np.tile(ramp[:, None], (1, SIDE)), blue.astype(np.uint8)], axis=2)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **({"quality": 95} | options))
    return written.getvalue()


def stored(orientation: int, mode: str = "RGB") -> Image.Image:
    image = Image.fromarray(scene()).convert(mode)
    return image.transpose(STORED_BY[orientation]) if orientation in STORED_BY else image


def segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload


def exif(orientation: int) -> bytes:
    """A whole EXIF block with this orientation alone."""
    notes = Image.Exif()
    notes[0x0112] = orientation
    return notes.tobytes()


def xmp(orientation: int) -> bytes:
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % orientation


EXIF = {number: segment(0xE1, exif(number)) for number in range(1, 10)}
EMPTY_EXIF = segment(0xE1, b"Exif\0\0")
JUNK_EXIF = segment(0xE1, b"Exif\0\0junkjunkjunk")
PROFILES = segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65_000)) * 3
XMP = {number: segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(number)) for number in range(1, 9)}


def with_segments(content: bytes, segments: bytes, before: int | None = None) -> bytes:
    """A JPEG with further segments: in front of the first of marker `before`, else behind the JFIF segment."""
    place = 4 + int.from_bytes(content[4:6], "big") if before is None else content.index(bytes((0xFF, before)))
    return content[:place] + segments + content[place:]


def jpegs() -> Iterator[tuple[str, bytes, np.ndarray]]:
    """Sound JPEGs by name, with the pixels that they show."""
    shown, plain = scene(), encode(stored(1), "JPEG")
    grey = np.repeat(np.asarray(stored(1, "L"))[:, :, None], 3, axis=2)
    for name, options in {
        "plain": {}, "progressive": {"progressive": True}, "of full color": {"subsampling": 0},
        "in RGB": {"keep_rgb": True}, "with restarts": {"restart_marker_blocks": 1}, "optimized": {"optimize": True},
    }.items():  # fmt: skip
        yield name, encode(stored(1), "JPEG", **options), shown
    yield "grey", encode(stored(1, "L"), "JPEG"), grey
    yield "CMYK", encode(stored(1, "CMYK"), "JPEG"), shown
    yield "MPO", encode(stored(1), "MPO", save_all=True, append_images=[stored(3)]), shown
    yield "junk behind the end", plain + b"junk" * 9, shown
    yield "zeros before the end", plain[:-2] + bytes(3) + plain[-2:], shown
    yield "bytes between segments", with_segments(plain, b"abc", 0xDB), shown
    yield "fill bytes", with_segments(plain, b"\xff" * 9, 0xDB), shown
    for number in range(1, 9):
        lying = encode(stored(number), "JPEG")
        yield f"EXIF {number}", with_segments(lying, EXIF[number]), shown
        yield f"EXIF {number} behind a comment", with_segments(lying, segment(0xFE, b"hello") + EXIF[number]), shown
        yield f"EXIF {number} behind tables", with_segments(lying, EXIF[number], 0xC0), shown
        yield f"XMP {number}", with_segments(lying, XMP[number]), shown
    lying = encode(stored(6), "JPEG")
    for name, segments, place in (
        ("EXIF behind 195 kB of profile", PROFILES + EXIF[6], None),
        ("EXIF behind an empty one", EMPTY_EXIF + EXIF[6], None),
        ("EXIF behind a broken one", JUNK_EXIF + EXIF[6], None),
        ("EXIF behind one of 9", EXIF[9] + EXIF[6], None),
        ("EXIF 6 before 1", EXIF[6] + EXIF[1], None),
        ("EXIF right before the scan", EXIF[6], 0xDA),
        ("EXIF behind bytes that are none", b"abc" + EXIF[6], 0xDB),
        ("EXIF before another XMP", EXIF[6] + XMP[3], None),
        ("EXIF behind another XMP", XMP[3] + EXIF[6], None),
        ("XMP behind a broken EXIF", JUNK_EXIF + XMP[6], None),
    ):
        yield name, with_segments(lying, segments, place), shown
    yield "progressive with EXIF 6", with_segments(encode(stored(6), "JPEG", progressive=True), EXIF[6]), shown
    yield "CMYK with EXIF 6", with_segments(encode(stored(6, "CMYK"), "JPEG"), EXIF[6], 0xDB), shown
    for name, segments in (("EXIF 1 before 6", EXIF[1] + EXIF[6]), ("broken EXIF", JUNK_EXIF), ("EXIF 9", EXIF[9])):
        yield name, with_segments(plain, segments), shown


def piece(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(pixels: np.ndarray, color: int, *extra: bytes, bits: int = 8, interlaced: bool = False) -> bytes:
    """A PNG by hand: big-endian samples without a filter, further pieces before the pixels."""
    passes = [(0, 0, 1, 1)]
    if interlaced:  # Adam7: first row and column, then the steps
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(b"\0" + row.tobytes() for y, x, dy, dx in passes for row in pixels[y::dy, x::dx])
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, color, 0, 0, interlaced)
    pieces = [piece(b"IHDR", header), *extra, piece(b"IDAT", zlib.compress(rows)), piece(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def pngs() -> Iterator[tuple[str, bytes, np.ndarray]]:
    """Sound PNGs by name, with the pixels that they show."""
    shown, image = scene(), Image.fromarray(scene())
    grey = np.repeat(np.asarray(image.convert("L"))[:, :, None], 3, axis=2)
    white = np.full_like(shown, 255)
    half = shown.copy()
    half[:, : SIDE // 2] = 255
    mask = Image.fromarray(np.repeat(np.where(np.arange(SIDE) < SIDE // 2, 0, 255)[None], SIDE, 0).astype(np.uint8))
    clear = image.copy()
    clear.putalpha(mask)
    grey_clear, grey_half = image.convert("L"), grey.copy()
    grey_clear.putalpha(mask)
    grey_half[:, : SIDE // 2] = 255
    for mode, expected in (("RGB", shown), ("L", grey)):
        yield mode, encode(image.convert(mode), "PNG"), expected
    yield "RGBA", encode(clear, "PNG"), half
    yield "LA", encode(grey_clear, "PNG"), grey_half
    palette = image.quantize(64)
    yield "palette", encode(palette, "PNG"), np.asarray(palette.convert("RGB"))
    yield "palette that is clear", encode(palette, "PNG", transparency=bytes(64)), white
    bilevel = image.convert("1")
    yield "1 bit", encode(bilevel, "PNG"), np.asarray(bilevel.convert("RGB"))
    yield "RGB with a clear color", encode(Image.new("RGB", image.size, "red"), "PNG", transparency=(255, 0, 0)), white
    levels = np.linspace(0, 65535, SIDE * SIDE).astype(">u2").reshape(SIDE, SIDE)
    ramp = np.repeat((levels >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    yield "16 bits", encode(Image.fromarray(levels.astype("<u2")), "PNG"), ramp
    first_clear = ramp.copy()
    first_clear[0, 0] = 255
    yield "16 bits with a clear level", png_of(levels, 0, piece(b"tRNS", bytes(2)), bits=16), first_clear
    yield "16 bits a color", png_of(shown.astype(">u2") * 257, 2, bits=16), shown
    yield "interlaced", png_of(shown, 2, interlaced=True), shown
    yield "animated", encode(image, "PNG", save_all=True, append_images=[stored(3)]), shown
    for number in range(2, 9):
        yield f"EXIF {number}", encode(stored(number), "PNG", exif=exif(number)), shown
    lying = encode(stored(6), "PNG")
    yield "EXIF behind the pixels", lying[:-12] + piece(b"eXIf", exif(6)[6:]) + lying[-12:], shown
    packet = piece(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6))
    yield "XMP", lying[:33] + packet + lying[33:], shown
    yield "broken EXIF", encode(image, "PNG", exif=b"XXXXjunk"), shown
    profile = PngInfo()
    profile.add_text("Raw profile type exif", "\nexif\n       4\nzz not hex")
    yield "profile that is not hex", encode(image, "PNG", pnginfo=profile), shown
    good = PngInfo()
    good.add_text("Raw profile type exif", f"\nexif\n {len(exif(6))}\n{exif(6).hex()}\n")
    yield "EXIF in a profile", encode(stored(6), "PNG", pnginfo=good), shown


def webps() -> Iterator[tuple[str, bytes, np.ndarray]]:
    """Sound WebP files by name, with the pixels that they show."""
    shown, image = scene(), Image.fromarray(scene())
    yield "lossy", encode(image, "WEBP"), shown
    yield "lossless", encode(image, "WEBP", lossless=True), shown
    yield "clear", encode(Image.new("RGBA", image.size), "WEBP"), np.full_like(shown, 255)
    yield "animated", encode(image, "WEBP", save_all=True, append_images=[stored(3)]), shown
    for number in (3, 6, 8):
        yield f"EXIF {number}", encode(stored(number), "WEBP", exif=exif(number)), shown
    yield "XMP 6", encode(stored(6), "WEBP", xmp=xmp(6)), shown
    yield "broken EXIF", encode(image, "WEBP", exif=b"Exif\0\0junkjunk"), shown


def repeated_scans(content: bytes, times: int) -> bytes:
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * times + content[-2:]


def states_size(content: bytes, frame: bytes = b"\xff\xc0") -> bytes:
    place = content.index(frame) + 5
    return content[:place] + struct.pack(">HH", 65_500, 65_500) + content[place + 4 :]


def refused() -> Iterator[tuple[str, bytes, str, str]]:
    """Files that nobody may decode: name, content, extension, beginning of the reason."""
    plain, png, webp = (encode(stored(1), kind) for kind in ("JPEG", "PNG", "WEBP"))
    progressive = encode(stored(1), "JPEG", progressive=True)
    for share in (2, 3, 5, 8):
        for extension, content in (("jpg", plain), ("jpg", progressive), ("png", png), ("webp", webp)):
            kind = "progressive jpg" if content is progressive else extension
            yield f"{kind} cut at {share}/9", content[: len(content) * share // 9], extension, "broken image"
    yield "jpg without its end", plain[:-2], "jpg", "broken image"
    yield "jpg cut, with an end", plain[: len(plain) // 2] + plain[-2:], "jpg", "broken image"
    yield "lying jpg cut, with an end", with_segments(plain[: -len(plain) // 3] + plain[-2:], EXIF[6]), "jpg", "broken"
    yield "CMYK jpg cut", encode(stored(1, "CMYK"), "JPEG")[:-99] + b"\xff\xd9", "jpg", "broken image"
    yield "start of a jpg", b"\xff\xd8\xff", "jpg", "not a JPEG|broken image"
    yield "EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n%%EndComments\n", "jpg", "not a JPEG"
    yield "GIF of another name", b"\0" + encode(stored(1), "GIF"), "png", "not a JPEG"
    yield "text", b"version https://git-lfs.github.com/spec/v1\n", "jpg", "not a JPEG"
    yield "PPM", encode(stored(1), "PPM"), "jpg", "not a JPEG"
    yield "JPEG 2000", encode(stored(1), "JPEG2000"), "jpg", "not a JPEG"
    yield "many scans", repeated_scans(progressive, 100), "jpg", "too many scans"
    hidden = with_segments(repeated_scans(progressive, 100), b"abc", 0xC2)
    yield "many scans behind bytes that are no marker", hidden, "jpg", "too many scans"
    yield "jpg of many pixels", states_size(plain), "jpg", "too many pixels"
    yield "lying jpg of many pixels", states_size(with_segments(plain, EXIF[6], 0xDB)), "jpg", "too many pixels"
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    states = b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", header) + piece(b"IDAT", zlib.compress(bytes(99)))
    yield "png of many pixels", states + piece(b"IEND", b""), "png", "too many pixels"
    note = piece(b"zTXt", b"note\0\0" + zlib.compress(bytes(70 << 20)))
    yield "png with a large note", png[:33] + note + png[33:], "png", "broken image"
    yield "png with a wrong checksum", png[:-20] + bytes((png[-20] ^ 1,)) + png[-19:], "png", "broken image"


def all_images() -> dict[str, OddImage]:
    """Every case by name."""
    found = {}
    made: tuple[tuple[str, Callable, float], ...] = (("jpg", jpegs, LOSSY), ("png", pngs, 0.0), ("webp", webps, LOSSY))
    for extension, make, tolerance in made:
        for name, content, shown in make():
            found[f"{extension}: {name}"] = OddImage(content, extension, shown, tolerance)
    for name, content, extension, reason in refused():
        found[f"refused: {name}"] = OddImage(content, extension, reason)
    return found
