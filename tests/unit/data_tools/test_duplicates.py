"""Copies of images are found, with the counts of those missed and of those taken for copies by mistake."""

import io
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from data_tools.build import BuildSettings, Earlier, build_shards
from data_tools.duplicates import SeenImages
from data_tools.images import ImageRules
from data_tools.looks import LOOK_BYTES, look_of
from data_tools.selection import CutRules
from mmtrain.data.index import DataError
from tests.benchmarks.web_photos import draw_photo
from tests.unit.data_tools.test_sources import left_out

NUM_ORIGINALS = 150


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def copies(original: bytes, rng: Random) -> dict[str, bytes]:
    """The ways in which one image comes twice."""
    image = Image.open(io.BytesIO(original))
    scale = rng.uniform(0.4, 1.6)
    size = tuple(round(side * scale) for side in image.size)
    sampling = rng.choice((Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS))
    return {
        "exact": original,
        "re-encoded": encode(image, "JPEG", quality=rng.randint(30, 92), subsampling=rng.choice((0, 2))),
        "other format": encode(image, rng.choice(("WEBP", "PNG"))),
        "resized": encode(image.resize(size, sampling), "JPEG", quality=rng.randint(60, 92)),
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A table of originals and, later in it, copies of every other one; and what each copy is."""
    folder, rng = tmp_path_factory.mktemp("planted"), Random(4)
    files, kinds = {}, {}
    for number in range(NUM_ORIGINALS):
        size = (rng.randint(140, 260), rng.randint(120, 220))
        original = encode(draw_photo(7000 + number, size, rng.choice((0.3, 0.4, 0.5))), "JPEG", quality=90)
        files[f"{number}.jpg"] = original
        if number % 2:
            for kind, content in copies(original, rng).items():
                name = f"{number} {kind}.jpg"
                files[name], kinds[name] = content, kind
    for name, content in files.items():
        (folder / name).write_bytes(content)
    lines = [f"{name},picture of {name}" for name in files]
    (folder / "pairs.csv").write_text("\n".join(["image,caption", *lines]) + "\n")
    return folder / "pairs.csv", kinds


def settings(dedup: str) -> BuildSettings:
    return BuildSettings(ImageRules(looks=dedup == "near"), cut=CutRules(dedup=dedup))


def test_exact_copies_are_found_and_nothing_else(planted, tmp_path):
    table, kinds = planted
    build_shards([str(table)], tmp_path / "out", settings("exact"))
    found = {source: reason for source, reason, _ in left_out(tmp_path / "out")}
    assert set(found) == {name for name, kind in kinds.items() if kind == "exact"}
    assert set(found.values()) == {"same image as another"}


def test_re_encoded_and_resized_copies_are_found_with_no_miss_and_no_false_alarm(planted, tmp_path):
    table, kinds = planted
    build_shards([str(table)], tmp_path / "out", settings("near"))
    found = {source for source, _, _ in left_out(tmp_path / "out")}
    misses = Counter(kinds[name] for name in set(kinds) - found)
    false_alarms = found - set(kinds)
    print(f"{len(kinds)} copies of {NUM_ORIGINALS} originals: misses {dict(misses)}, false alarms {len(false_alarms)}")
    assert misses.total() == 0 and not false_alarms


def test_images_of_earlier_builds_count_as_seen(planted, tmp_path):
    table, kinds = planted
    lines = table.read_text().splitlines()
    for name, rows in (("early", lines[1:200]), ("late", lines[200:])):
        (table.parent / f"{name}.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    build_shards([str(table.parent / "early.csv")], tmp_path / "early", settings("near"))
    earlier = Earlier(against=(tmp_path / "early",))
    copy = table.parent / "again.csv"
    copy.write_text("\n".join([lines[0], *lines[1:200], *lines[200:260]]) + "\n")
    build_shards([str(copy)], tmp_path / "late", settings("near"), earlier=earlier)
    found = {source for source, _, _ in left_out(tmp_path / "late")}
    early = {line.rsplit(",", 1)[0] for line in lines[1:200]}
    assert early <= found
    assert any("of early" in detail for _, _, detail in left_out(tmp_path / "late"))


def test_a_build_that_noted_no_looks_cannot_be_compared_by_looks(planted, tmp_path):
    table, _ = planted
    build_shards([str(table)], tmp_path / "out", settings("exact"))
    earlier = Earlier(against=(tmp_path / "out",))
    with pytest.raises(DataError, match="without --dedup near"):
        build_shards([str(table)], tmp_path / "next", settings("near"), earlier=earlier)
    with pytest.raises(DataError, match="no samples.parquet"):
        build_shards([str(table)], tmp_path / "other", settings("exact"), earlier=Earlier(against=(tmp_path,)))


def test_plain_images_of_different_colors_are_not_the_same():
    red, blue = (look_of(Image.new("RGB", (90, 70), color)) for color in ("red", "blue"))
    seen = SeenImages(near_bits=7)
    seen.add(b"1", red, "red")
    assert len(red) == LOOK_BYTES
    assert seen.find(b"2", blue) is None and seen.find(b"3", red).name == "red"


def test_every_look_within_the_distance_is_found_and_none_beyond():
    rng, seen = Random(5), SeenImages(near_bits=7)
    looks = [rng.randbytes(LOOK_BYTES - 3) + b"\x80\x80\x80" for _ in range(300)]
    for number, look in enumerate(looks):
        seen.add(b"%d" % number, look, f"{number}")
    for number, look in enumerate(looks):
        for num_bits in (0, 5, 7, 8, 12):
            changed = int.from_bytes(look[:-3], "big")
            for bit in rng.sample(range(128), num_bits):
                changed ^= 1 << bit
            found = seen.find(b"none", changed.to_bytes(16, "big") + look[-3:])
            assert (found and (found.name, found.num_bits)) == ((f"{number}", num_bits) if num_bits <= 7 else None)
