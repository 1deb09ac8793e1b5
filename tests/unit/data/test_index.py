import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import webdataset

from mmtrain.config.schema import DataConfig
from mmtrain.data.index import (
    DataError,
    ShardIndex,
    describe_shard,
    find_shards,
    index_path,
    open_index,
    read_index,
    read_manifest,
    read_part,
    scan_shard,
    write_index,
    write_manifest,
)
from mmtrain.data.places import Access
from mmtrain.data.shards import open_shards
from tests.unit.data.made import files_of, write_set, write_tar


def contents(index: ShardIndex) -> dict[str, dict[str, bytes]]:
    return {
        key: {extension: read_part(index.path, part) for extension, part in parts.items()}
        for key, parts in zip(index.keys, index.parts, strict=True)
    }


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_tars_of_every_format_are_read_byte_for_byte(tmp_path: Path, kind: int):
    folder = "a folder/" * 12  # longer than the 100 bytes of a plain name
    samples = {f"{folder if number % 2 else ''}é{number:03d}": files_of(number) for number in range(12)}
    index = scan_shard(write_tar(tmp_path / "x-000000.tar", samples, kind))
    assert contents(index) == samples
    assert index.faults == ()


def test_shards_written_by_webdataset_are_read(tmp_path: Path):
    samples = {f"s{number:04d}": files_of(number) for number in range(20)}
    with webdataset.ShardWriter(f"{tmp_path}/w-%06d.tar", maxcount=8, verbose=0) as writer:
        for key, files in samples.items():
            writer.write({"__key__": key, **files})
    read = {}
    for index in map(open_index, find_shards([f"{tmp_path}/w-{{000000..000002}}.tar"])):
        assert not index.faults
        read |= contents(index)
    assert read == samples


def test_shards_written_by_gnu_tar_are_read(tmp_path: Path):
    for extension, content in files_of(5).items():
        (tmp_path / f"k5.{extension}").write_bytes(content)
    subprocess.run(["tar", "cf", "g.tar", "k5.jpg", "k5.txt", "k5.json"], cwd=tmp_path, check=True)
    assert contents(scan_shard(tmp_path / "g.tar")) == {"k5": files_of(5)}


def test_extensions_are_lower_case_and_hold_all_behind_the_first_dot(tmp_path: Path):
    index = scan_shard(write_tar(tmp_path / "x.tar", {"d.d/a": {"JPG": b"1", "seg.PNG": b"2"}, "": {"hidden": b"3"}}))
    assert index.keys == ("d.d/a",)
    assert set(index.parts[0]) == {"jpg", "seg.png"}


def test_a_file_that_occurs_twice_in_a_sample_is_a_fault(tmp_path: Path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for content in (b"1", b"22"):
            (tmp_path / "k.txt").write_bytes(content)
            tar.add(tmp_path / "k.txt", "k.txt")
    index = scan_shard(tmp_path / "x.tar")
    assert contents(index) == {"k": {"txt": b"1"}}
    assert [fault.key for fault in index.faults] == ["k"]


def test_a_tar_cut_anywhere_yields_its_whole_members_and_one_fault(tmp_path: Path):
    whole = write_tar(tmp_path / "whole.tar", {f"k{number}": files_of(number) for number in range(3)})
    full = scan_shard(whole)
    last = full.parts[2]["json"]
    for length in range(0, last.offset + last.size, 300):
        cut = tmp_path / f"cut{length}.tar"
        cut.write_bytes(whole.read_bytes()[:length])
        index = scan_shard(cut)
        assert len(index.faults) == 1, length
        expected = [
            (key, parts_whole)
            for key, parts in zip(full.keys, full.parts, strict=True)
            if (parts_whole := {e: part for e, part in parts.items() if part.offset + part.size <= length})
        ]
        assert list(zip(index.keys, index.parts, strict=True)) == expected


def test_the_fault_of_a_cut_member_names_its_sample(tmp_path: Path):
    whole = write_tar(tmp_path / "whole.tar", {"k0": files_of(0), "k1": files_of(1)})
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[: scan_shard(whole).parts[1]["jpg"].offset + 10])
    (fault,) = scan_shard(cut).faults
    assert (fault.shard, fault.key) == ("cut.tar", "k1")
    assert "cut inside k1.jpg" in fault.reason


def test_a_flipped_bit_in_a_header_ends_the_walk_with_a_fault(tmp_path: Path):
    shard = write_tar(tmp_path / "x.tar", {"k0": files_of(0), "k1": files_of(1)})
    content = bytearray(shard.read_bytes())
    content[scan_shard(shard).parts[1]["jpg"].offset - 512] ^= 1
    shard.write_bytes(content)
    index = scan_shard(shard)
    assert index.keys == ("k0",)
    assert "damaged header" in index.faults[0].reason


def test_what_is_no_tar_is_one_fault_and_no_sample(tmp_path: Path):
    (tmp_path / "x.tar").write_bytes(b"this is not a tar at all" * 100)
    index = scan_shard(tmp_path / "x.tar")
    assert index.keys == () and len(index.faults) == 1


def test_a_written_index_is_read_back_equal(tmp_path: Path):
    shard = write_tar(tmp_path / "x.tar", {"k0": files_of(0), "k1": {"txt": b"no image"}})
    index = scan_shard(shard)
    assert write_index(index) == index_path(shard)
    assert read_index(shard) == open_index(shard) == index
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar", "x.tar.index"]


@pytest.mark.parametrize("same_size", [False, True])
def test_the_index_of_another_tar_is_refused_and_the_tar_walked(tmp_path: Path, same_size: bool):
    shard = write_tar(tmp_path / "x.tar", {"k0": {"txt": b"one"}})
    write_index(scan_shard(shard))
    size = shard.stat().st_size
    shard.unlink()
    write_tar(shard, {"k7": {"txt": b"a longer text" * (1 if same_size else 2000)}})
    assert (shard.stat().st_size == size) == same_size
    with pytest.raises(DataError, match="belongs to another x.tar"):
        read_index(shard)
    assert open_index(shard).keys == ("k7",)


def test_a_damaged_index_is_refused_and_the_tar_walked(tmp_path: Path):
    shard = write_tar(tmp_path / "x.tar", {"k0": files_of(0)})
    sidecar = write_index(scan_shard(shard))
    sidecar.write_bytes(sidecar.read_bytes()[:-9])
    with pytest.raises(DataError, match="is not an index"):
        read_index(shard)
    assert open_index(shard) == scan_shard(shard)


def test_shards_are_found_by_folder_file_glob_and_braces_in_sorted_order(tmp_path: Path):
    write_set(tmp_path / "s", 6, shard=2)
    shards = [tmp_path / "s" / f"set-{number:06d}.tar" for number in range(3)]
    assert find_shards([str(tmp_path / "s")]) == shards
    assert find_shards([str(tmp_path / "s" / "*.tar")]) == shards
    assert find_shards([str(tmp_path / "s" / "set-{000000..000001}.tar")]) == shards[:2]
    assert find_shards([str(shards[2]), str(shards[0])]) == [shards[0], shards[2]]


@pytest.mark.parametrize("place", ["{here}/none", "{here}", "{here}/*.tar", "{here}/x-{{0..3}}.tar", "{here}/{{a"])
def test_a_place_without_shards_is_refused_by_the_name_of_its_knob(tmp_path: Path, place: str):
    with pytest.raises(DataError, match="data.heldout"):
        find_shards([place.format(here=tmp_path)], "data.heldout")


def test_no_place_and_a_place_twice_are_refused(tmp_path: Path):
    write_set(tmp_path / "s", 2)
    with pytest.raises(DataError, match="data.train names no place"):
        find_shards([])
    with pytest.raises(DataError, match="2 times"):
        find_shards([str(tmp_path / "s"), str(tmp_path / "s" / "*.tar")])


def test_shards_without_one_sample_are_refused(tmp_path: Path):
    write_tar(tmp_path / "x.tar", {})
    with pytest.raises(DataError, match="data.train names 1 shards without one sample"):
        open_shards([str(tmp_path)], Access(DataConfig()))


def test_a_part_that_was_cut_off_after_indexing_is_an_error(tmp_path: Path):
    shard = write_tar(tmp_path / "x.tar", {"k0": files_of(0)})
    part = scan_shard(shard).parts[0]["json"]
    shard.write_bytes(shard.read_bytes()[: part.offset + 1])
    with pytest.raises(DataError, match="was cut after it was indexed"):
        read_part(shard, part)


def test_a_manifest_is_read_back_equal_and_tells_what_is_wrong(tmp_path: Path):
    shard = write_tar(tmp_path / "x.tar", {"k0": files_of(0)})
    write_manifest(tmp_path, [describe_shard(shard, 1)], source="made", settings={"side": 1}, statistics={})
    manifest = read_manifest(tmp_path)
    assert manifest.num_samples == 1 and manifest.settings == {"side": 1}
    assert manifest.shards == (describe_shard(shard, 1),)
    with pytest.raises(DataError, match="has no manifest.json"):
        read_manifest(tmp_path / "elsewhere")
    (tmp_path / "manifest.json").write_text('{"format": "mmtrain-shards/1"}')
    with pytest.raises(DataError, match="is not a manifest"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match=r"is not a manifest of shards \(it is a git-lfs pointer"):
        read_manifest(tmp_path)


def test_indexes_order_masks_and_the_tokenizer_load_without_torch():
    rooms = "mmtrain.data.index, mmtrain.data.order, mmtrain.data.tokenizer, mmtrain.data.masking, mmtrain.data.table"
    code = f"import sys, {rooms}; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
