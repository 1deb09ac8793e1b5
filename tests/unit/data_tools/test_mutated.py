"""Mutated tars and images: no crash, no hang, no memory above a bound, and every bad sample is named."""

import hashlib
import io
import json
import struct
import tarfile
import zlib
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from data_tools.build import BuildSettings, build_shards
from data_tools.foreign import index_shards
from data_tools.images import ImageRules, prepare_image
from data_tools.left_out import Unusable
from data_tools.pack import Sample, write_shard
from data_tools.verify import verify_shards
from mmtrain.data.index import DataError, ShardEntry, scan_shard, write_manifest
from mmtrain.io.image_codec import MAX_PIXELS
from tests.benchmarks.web_photos import draw_photo
from tests.bounds import bounds

CPU_SECONDS_PER_CASE = 5
MAX_MEMORY_BYTES = 512 << 20  # that one case may add to what the process has
NUM_SAMPLES = 4
FORMATS = ("JPEG", "PNG", "WEBP")


def bounded() -> AbstractContextManager[None]:
    """A case that takes too long or too much memory fails."""
    return bounds(CPU_SECONDS_PER_CASE, MAX_MEMORY_BYTES)


def encode(number: int, kind: str) -> bytes:
    written = io.BytesIO()
    draw_photo(number, (96, 72), 0.5).save(written, kind, quality=90, **({"progressive": True} if number % 2 else {}))
    return written.getvalue()


def jpeg_of_many_scans() -> bytes:
    """A small progressive JPEG whose last scan comes a thousand times: each must be walked through."""
    written = io.BytesIO()
    Image.new("L", (512, 512), 99).save(written, "JPEG", progressive=True)
    content = written.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * 1000 + content[-2:]


def png_of(width: int, height: int, packed: bytes) -> bytes:
    def piece(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", header) + piece(b"IDAT", packed) + piece(b"IEND", b"")


def png_with_a_large_note() -> bytes:
    plain, note = encode(2, "PNG"), b"zTXtnote\0\0" + zlib.compress(bytes(200 << 20))
    noted = struct.pack(">I", len(note) - 4) + note + struct.pack(">I", zlib.crc32(note))
    return plain[:33] + noted + plain[33:]


def jpeg_that_states_many_pixels() -> bytes:
    content = bytearray(encode(4, "JPEG"))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 65_500, 65_500)
    return bytes(content)


BOMBS = {  # small files that ask for much memory or time
    "png that states many pixels": lambda: png_of(60_000, 60_000, zlib.compress(bytes(1000))),
    "png with few bytes for its pixels": lambda: png_of(8000, 7999, zlib.compress(bytes(1000))),
    "png with many bytes for its pixels": lambda: png_of(16, 16, zlib.compress(bytes(300 << 20))),
    "png with a large note": png_with_a_large_note,
    "jpeg that states many pixels": jpeg_that_states_many_pixels,
    "jpeg of many scans": jpeg_of_many_scans,
    "webp that states many pixels": lambda: b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff" * 6 + bytes(8),
}


def mutate(content: bytes, rng: Random) -> bytes:
    """One of several kinds of damage."""
    changed = bytearray(content)
    kind = rng.randrange(6)
    if kind == 0:
        return content[: rng.randrange(len(content))]
    if kind == 1:
        for _ in range(rng.choice((1, 1, 4, 30))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == 2:  # headers lie at the beginning
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(min(len(changed), 600))] = rng.randrange(256)
    elif kind == 3:
        start = rng.randrange(len(changed))
        changed[start : start + rng.randrange(1, 400)] = rng.randbytes(rng.randrange(400))
    elif kind == 4:
        start = rng.randrange(len(changed))
        changed[start:start] = changed[max(0, start - 512) : start]
    else:
        start = rng.randrange(len(changed))
        changed[start : start + 64] = rng.choice((bytes(64), b"\xff" * 64))
    return bytes(changed)


def is_readable(content: bytes) -> bool:
    """What Pillow alone says: the witness that a named image was bad, and an unnamed one was not."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            image.load()
    except Exception:
        return False
    return True


def check_images(num_cases: int) -> tuple[int, int]:
    """Mutate images; returns how many were named, and how many of the unnamed Pillow cannot read."""
    rng, named, unnamed_bad = Random(1), 0, 0
    originals = [encode(number, kind) for number in range(4) for kind in FORMATS]
    for _ in range(num_cases):
        content = mutate(rng.choice(originals), rng)
        with bounded():
            try:
                prepared = prepare_image(content, ImageRules(resize=rng.choice((None, 24)), looks=True))
                assert prepared.size[0] > 0 and is_readable(prepared.content)
                unnamed_bad += not is_readable(content)
            except Unusable as error:
                assert error.reason
                named += 1
    return named, unnamed_bad


def test_mutated_images_are_named_or_readable():
    named, unnamed_bad = check_images(300)
    assert named > 100 and unnamed_bad == 0


@pytest.mark.long
def test_two_thousand_mutated_images_are_named_or_readable():
    named, unnamed_bad = check_images(2000)
    assert named > 800 and unnamed_bad == 0


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_bounds_or_harmless(name):
    content = BOMBS[name]()
    with bounded():
        try:
            size = prepare_image(content, ImageRules(resize=32)).size
            assert name == "png with many bytes for its pixels" and size == (16, 16)
        except Unusable as error:
            assert error.reason in ("too many pixels", "too many scans", "broken image"), error
    assert len(content) < 2 << 20 and MAX_PIXELS < 8000 * 8001


def whole_tar(folder: Path) -> bytes:
    """The bytes of a small shard."""
    samples = [
        Sample(f"{number:08d}", {"jpg": encode(number, "JPEG"), "txt": b"a caption", "json": b'{"a": 1}'})
        for number in range(NUM_SAMPLES)
    ]
    write_shard(folder / "whole.tar", samples)
    content = (folder / "whole.tar").read_bytes()
    (folder / "whole.tar").unlink()
    return content


def odd_tars() -> dict[str, bytes]:
    """Tars that no mutation would hit upon."""

    def tar_of(*members: tuple[str, bytes, bytes, str], style: int = tarfile.PAX_FORMAT) -> bytes:
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w", format=style) as tar:
            for name, content, kind, link in members:
                member = tarfile.TarInfo(name)
                member.size, member.type, member.linkname = len(content), kind, link
                tar.addfile(member, io.BytesIO(content))
        return written.getvalue()

    def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
        block = bytearray(name.ljust(100, b"\0") + b"0000644\0" * 3 + size.ljust(12, b"\0") + b"0" * 11 + b"\0")
        block += b" " * 8 + kind + bytes(100) + b"ustar\0" + b"00" + bytes(247)
        block[148:156] = b"%06o\0 " % sum(block)
        return bytes(block)

    image = encode(1, "JPEG")
    return {
        "a name of 200,000 signs": tar_of((f"{'n' * 200_000}.jpg", image, tarfile.REGTYPE, "")),
        "a name of 200,000 signs, GNU": tar_of(
            (f"{'n' * 200_000}.jpg", image, tarfile.REGTYPE, ""), style=tarfile.GNU_FORMAT
        ),
        "control signs in a name": tar_of(("a\x1b[2J\n.jpg", image, tarfile.REGTYPE, "")),
        "a link out": tar_of(("a.jpg", b"", tarfile.SYMTYPE, "/etc/passwd")),
        "a climbing path": tar_of(("../../a.jpg", image, tarfile.REGTYPE, "")),
        "a size below zero": header(b"a.jpg", b"-0001000") + bytes(2048),
        "a size in base 256": header(b"a.jpg", b"\xff" * 12) + bytes(2048),
        "a size beyond the end": header(b"a.jpg", b"77777777777") + bytes(2048),
        "a note of 8 GB": header(b"a", b"77777777777", b"x") + bytes(2048),
        "a note that is no note": header(b"a", b"00000001000", b"x") + b"9" * 512 + bytes(1024),
        "a note with a size that is none": header(b"a", b"00000000017", b"x") + b"15 size=1e9999\n".ljust(512, b"\0")
        + header(b"a.jpg", b"0") + bytes(1024),
        "a note that is not UTF-8": header(b"a", b"00000000016", b"x") + b"14 \xff\xfepth=aa\n".ljust(512, b"\0")
        + header(b"a.jpg", b"0") + bytes(1024),
        "three thousand folders": tar_of(*((f"d{n}", b"", tarfile.DIRTYPE, "") for n in range(3000))),
        "a deep .json": tar_of(
            ("a.jpg", image, tarfile.REGTYPE, ""), ("a.txt", b"x", tarfile.REGTYPE, ""),
            ("a.json", b"[" * 100_000, tarfile.REGTYPE, ""),
        ),
        "nothing": b"",
        "zeros": bytes(10240),
        "text": b"no tar at all" * 100,
    }  # fmt: skip


def check_tar(content: bytes, folder: Path, number: int = 0) -> list[str]:
    """Faults that `verify` finds in a tar without a manifest; build, index and scan must not crash on it."""
    path = folder / f"{number}.tar"
    path.write_bytes(content)
    with bounded():
        faults = [str(fault) for fault in verify_shards([str(path)], processes=1).faults]
        scan_shard(path)
        index_shards([str(path)], processes=1, overwrite=True)
        try:
            build_shards([str(path)], folder / f"out{number}", BuildSettings())
        except DataError as error:
            assert "no usable pair" in str(error)
    return faults


@pytest.mark.parametrize("name", list(odd_tars()))
def test_an_odd_tar_is_named(name, tmp_path):
    assert bool(check_tar(odd_tars()[name], tmp_path)) == (name not in ("zeros", "three thousand folders"))


def check_tars(num_cases: int, folder: Path) -> tuple[int, int]:
    """Mutate a shard; every case must differ from its manifest, and what is damaged inside must be named.

    Returns how many were found by their content alone, and how many samples differ and are neither named nor readable.
    """
    content, rng = whole_tar(folder), Random(2)
    sha256 = hashlib.sha256(content).hexdigest()
    by_content = unnamed = 0
    for number in range(num_cases):
        changed = mutate(content, rng)
        by_content += bool(check_tar(changed, folder, number))
        stated = ShardEntry(f"{number}.tar", NUM_SAMPLES, len(content), sha256)
        write_manifest(folder, [stated], source="", settings={}, statistics={})
        faults = verify_shards([str(folder / f"{number}.tar")], processes=1).faults
        assert changed == content or faults, "a changed tar must not pass"
        unnamed += _count_unnamed(folder / f"out{number}")
        (folder / "manifest.json").unlink()
    return by_content, unnamed


def _count_unnamed(out: Path) -> int:
    """Faults of what a build kept of a damaged tar."""
    lines = (out / "left_out.jsonl").read_bytes().splitlines()
    assert all(json.loads(line)["reason"] and json.loads(line)["source"] for line in lines)
    kept = [str(path) for path in out.glob("*.tar")]
    return len(verify_shards(kept, processes=1).faults) if kept else 0


def test_mutated_tars_do_no_harm_and_are_named(tmp_path):
    by_content, unnamed = check_tars(60, tmp_path)
    assert by_content > 30 and unnamed == 0


@pytest.mark.long
def test_a_thousand_mutated_tars_do_no_harm_and_are_named(tmp_path):
    by_content, unnamed = check_tars(1000, tmp_path)
    assert by_content > 500 and unnamed == 0
