"""`mmdata verify` and `mmdata inspect`: damage is found and named."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from data_tools.pack import Sample, write_shard
from data_tools.report import figures, survey_shards, write_sheet
from data_tools.survey import spread
from data_tools.synthetic import SynthSettings, synthesize
from data_tools.verify import verify_shards
from mmtrain.data.index import index_path, open_index


@pytest.fixture
def shards(tmp_path) -> Path:
    synthesize(tmp_path, SynthSettings(num_train=30, num_heldout=0, samples_per_shard=10), processes=1)
    return tmp_path / "train"


def faults(folder: Path) -> list[str]:
    return [str(fault) for fault in verify_shards([str(folder)], processes=1).faults]


def flip_byte(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


def test_whole_shards_have_no_faults(shards):
    found = verify_shards([str(shards)], processes=1)
    assert (found.num_shards, found.num_samples, found.faults, found.without_manifest) == (3, 30, (), ())


def test_a_flipped_byte_in_an_image_is_found_in_its_shard(shards):
    tar = shards / "train-000001.tar"
    part = open_index(tar).parts[4]["jpg"]
    flip_byte(tar, part.offset + part.size // 2)
    assert any(fault.startswith("train-000001.tar") and "checksum" in fault for fault in faults(shards))


def test_an_image_that_cannot_be_decoded_is_named_with_its_key(shards):
    tar = shards / "train-000001.tar"
    index = open_index(tar)
    flip_byte(tar, index.parts[4]["jpg"].offset)
    assert f"train-000001.tar: {index.keys[4]}: " in "\n".join(faults(shards))


def test_a_cut_tar_is_named(shards):
    tar = shards / "train-000002.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    found = "\n".join(faults(shards))
    assert "train-000002.tar" in found and "cut" in found and "manifest says 10" in found


def test_missing_strange_and_badly_indexed_shards_are_named(shards):
    (shards / "train-000000.tar").unlink()
    strange = shards / "train-000009.tar"
    strange.write_bytes((shards / "train-000001.tar").read_bytes())
    sidecar = index_path(shards / "train-000002.tar")
    sidecar.write_bytes(sidecar.read_bytes().replace(b"00000021", b"00000099"))
    found = faults(shards)
    assert "train-000000.tar: (no sample): is in the manifest but missing" in found
    assert "train-000009.tar: (no sample): is not in the manifest" in found
    assert any(fault.startswith("train-000002.tar") and "index" in fault for fault in found)


def test_samples_without_image_caption_or_sound_metadata_are_named(tmp_path):
    picture = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(picture)
    write_shard(
        tmp_path / "own.tar",
        [
            Sample("good", {"png": picture.read_bytes(), "txt": b"x", "json": b"{}"}),
            Sample("bare", {"txt": b"x"}),
            Sample("mute", {"png": picture.read_bytes()}),
            Sample("blank", {"png": picture.read_bytes(), "txt": b" \n"}),
            Sample("latin", {"png": picture.read_bytes(), "txt": b"caf\xe9"}),
            Sample("torn", {"png": picture.read_bytes(), "txt": b"x", "json": b"{"}),
        ],
    )
    found = verify_shards([str(tmp_path)], processes=1)
    assert [(fault.key, fault.reason) for fault in found.faults] == [
        ("bare", "has no image"),
        ("mute", "has no caption"),
        ("blank", "has an empty caption"),
        ("latin", "has a caption that is not UTF-8"),
        ("torn", "has a .json that cannot be parsed"),
    ]
    assert found.without_manifest == (tmp_path,)


def test_the_survey_counts_what_the_manifest_states(shards):
    survey = survey_shards(sorted(shards.glob("*.tar")), processes=1)
    stated = json.loads((shards / "manifest.json").read_text())
    assert survey.record() == stated["statistics"]
    assert survey.num_samples == stated["num_samples"] == 30
    assert survey.image_sizes == {(64, 64): 30}


def test_each_fault_is_a_line_of_its_own_in_the_table(shards):
    for name in ("train-000000.tar", "train-000001.tar"):
        (shards / name).write_bytes((shards / name).read_bytes() * 2)
    rows = figures(survey_shards(sorted(shards.glob("*.tar")), processes=1), num_shards=3)
    assert rows[-3] == ("faults", "2")
    assert [(what, figure.partition(":")[0]) for what, figure in rows[-2:]] == [
        ("", "train-000000.tar"),
        ("", "train-000001.tar"),
    ]


def test_least_median_mean_and_largest_are_those_of_the_counted_values():
    assert spread(Counter([1, 1, 2, 10])) == {"least": 1, "median": 1, "mean": 3.5, "largest": 10}
    assert spread(Counter([4, 5, 6])) == {"least": 4, "median": 5, "mean": 5.0, "largest": 6}
    assert spread(Counter()) is None


def test_a_sheet_shows_as_many_pictures_as_asked_for(shards, tmp_path):
    assert write_sheet(sorted(shards.glob("*.tar")), tmp_path / "sheet.png", 12) == 12
    sheet = Image.open(tmp_path / "sheet.png")
    assert len(sheet.convert("RGB").getcolors(1 << 20)) > 100
