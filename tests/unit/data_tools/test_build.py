"""`mmdata build`: what the input may be, what is left out, and bytes that do not depend on the processes."""

import io
import json
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from data_tools.build import BuildSettings, Effort, build_shards
from data_tools.images import ImageRules
from data_tools.pack import Sample, write_shard
from data_tools.selection import CutRules
from data_tools.sources import SourceOptions, read_rows
from data_tools.tables import Columns
from data_tools.texts import CaptionRules
from mmtrain.data.index import DataError, find_shards, open_index, read_manifest, read_part

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 81920\n"


def write_image(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 16), (level % 256, 80, 160)).save(path)
    return path


def build(place: Path, out: Path, processes: int = 1, samples_per_shard: int = 1000, **settings):
    rules = BuildSettings(cut=CutRules(samples_per_shard), **settings)
    return build_shards([str(place)], out, rules, effort=Effort(processes))


def packed(folder: Path) -> list[tuple[str, str, dict]]:
    """Key, caption and metadata of every sample."""
    found = []
    for shard in find_shards([str(folder)]):
        index = open_index(shard)
        for key, parts in zip(index.keys, index.parts, strict=True):
            said = json.loads(read_part(shard, parts["json"]))
            found.append((key, read_part(shard, parts["txt"]).decode(), said))
    return found


def left_out(folder: Path) -> list[dict[str, str]]:
    """What the build says that it left out."""
    return [json.loads(line) for line in (folder / "left_out.jsonl").read_text().splitlines()]


@pytest.fixture
def table(tmp_path) -> Path:
    rows = ["image,caption"]
    for number in range(40):
        write_image(tmp_path / f"photos/{number}.png", number)
        rows.append(f'photos/{number}.png,"picture, {number}"')
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "pairs.csv"


def test_a_table_is_packed_in_its_order(table, tmp_path):
    report = build(table, tmp_path / "out", samples_per_shard=15)
    assert (report.num_packed, report.num_shards, len(report.left_out)) == (40, 3, 0)
    assert [caption for _, caption, _ in packed(tmp_path / "out")] == [f"picture, {n}" for n in range(40)]
    manifest = read_manifest(tmp_path / "out")
    assert manifest.num_samples == 40 and manifest.statistics["num_distinct_captions"] == 40


def test_the_bytes_do_not_depend_on_the_number_of_processes(table, tmp_path):
    for processes in (1, 2):
        build(table, tmp_path / f"out{processes}", processes, samples_per_shard=15, images=ImageRules(resize=8))
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("out1", "out2"))
    assert one == two and len(one) == 3 * 2 + 3


def test_a_seed_shuffles_the_same_pairs_the_same_way(table, tmp_path):
    for name in ("a", "b"):
        build(table, tmp_path / name, seed=5)
    build(table, tmp_path / "plain")
    assert packed(tmp_path / "a") == packed(tmp_path / "b") != packed(tmp_path / "plain")
    assert sorted(packed(tmp_path / "a"), key=str) == sorted(packed(tmp_path / "plain"), key=str)


def test_tsv_jsonl_and_other_column_names_are_read(tmp_path):
    write_image(tmp_path / "a.jpg")
    (tmp_path / "t.tsv").write_text("file\ttext\na.jpg\tone, two\n")
    (tmp_path / "l.jsonl").write_text(json.dumps({"file": "a.jpg", "text": "one, two"}) + "\n\n")
    for name in ("t.tsv", "l.jsonl"):
        (row,) = read_rows([str(tmp_path / name)], SourceOptions(Columns("file", "text")))
        assert (row.image, row.captions) == (tmp_path / "a.jpg", ("one, two",))


def test_a_folder_pairs_images_with_the_texts_beside_them_and_names_what_has_no_partner(tmp_path):
    folder = tmp_path / "photos"
    for name in ("a.jpg", "deep/b.PNG", "alone.jpg", "old.gif"):
        write_image(folder / name)
    for name in ("a.txt", "deep/b.txt", "lost.txt", "old.txt"):
        (folder / name).write_text(f"  about\n {name} ")
    report = build(folder, tmp_path / "out")
    assert [caption for _, caption, _ in packed(tmp_path / "out")] == ["about a.txt", "about deep/b.txt"]
    assert len(report.left_out) == 3
    assert {one["source"]: one["reason"] for one in left_out(tmp_path / "out")} == {
        "alone.jpg": "missing caption",
        "lost.txt": "missing image",
        "old.gif": "not a JPEG, PNG or WebP image",
    }


def test_what_is_left_out_is_named_with_its_reason_and_moves_no_other_key(tmp_path):
    write_image(tmp_path / "good.jpg")
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    lines = [
        '{"image": "good.jpg", "caption": "fine"}',
        '{"image": "text.jpg", "caption": "x"}',
        '{"image": "empty.jpg", "caption": "x"}',
        '{"image": "nowhere.jpg", "caption": "x"}',
        '{"image": "good.jpg", "caption": "  "}',
        '{"image": "good.jpg"}',
        '{"image": "good.jpg", "caption": 7}',
        '{"image": "", "caption": "x"}',
        "not json",
        '{"image": "good.jpg", "caption": "\\ud800"}',
        '{"image": "good.jpg", "caption": "fine again"}',
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    report = build(tmp_path / "pairs.jsonl", tmp_path / "out")
    assert [key for key, _, _ in packed(tmp_path / "out")] == ["00000000", "00000010"]
    assert [(one["key"], one["source"], one["reason"]) for one in left_out(tmp_path / "out")] == [
        ("00000001", "text.jpg", "not a JPEG, PNG or WebP image"),
        ("00000002", "empty.jpg", "empty file"),
        ("00000003", "nowhere.jpg", "missing file"),
        ("00000004", "good.jpg", "missing caption"),
        ("00000005", "good.jpg", "missing caption"),
        ("00000006", "good.jpg", "caption is not text"),
        ("00000007", "pairs.jsonl: line 8", "missing image"),
        ("00000008", "pairs.jsonl: line 9", "not a line of JSON"),
        ("00000009", "good.jpg", "caption is not text"),
    ]
    assert len(report.left_out) == 9


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("pairs.csv", b"picture,caption\na.jpg,x\n", "no column 'image'; its columns are: picture, caption"),
        ("pairs.csv", b"", "no column 'image'; its columns are: none"),
        ("pairs.csv", b"image,caption\na.jpg,caf\xe9\n", "no usable pair.*not UTF-8 text 1 times"),
        ("pairs.csv", b"image,caption,caption\na.jpg,x,y\n", "several columns called 'caption'; rename all but one"),
        ("pairs.csv", b'image,caption\na.jpg,"x\nb.jpg,y\n', "line 2: a quote that opens there is not closed"),
        ("pairs.csv", b"\xff\xfei\0m\0", "is UTF-16, not UTF-8 text; convert it first"),
        ("pairs.csv", b"image,caption\nnowhere.jpg,x\n", "no usable pair.*missing file 1 times"),
        ("pairs.parquet", b"", "is not a Parquet table: it is empty"),
        ("pairs.csv", LFS, "pairs.csv is a git-lfs pointer.*`git lfs pull` fetches it"),
        ("pairs.tsv", b"\x1f\x8b\x08\0junk", "pairs.tsv is compressed with gzip; unpack it with `gunzip`"),
        ("pairs.jsonl", LFS, "pairs.jsonl is a git-lfs pointer"),
        ("pairs.token", LFS, "pairs.token is a git-lfs pointer"),
        ("pairs.json", LFS, "pairs.json is a git-lfs pointer"),
        ("pairs.json", b"<!DOCTYPE html><title>404</title>", "pairs.json is an HTML page"),
        ("pairs.json", b"", "pairs.json is empty"),
        ("pairs.json", b"{", r"pairs.json is not JSON \("),
        ("pairs.parquet", LFS, "is not a Parquet table: it is a git-lfs pointer"),
        ("pairs.parquet", b"PAR1 and no more", "is not a Parquet table: "),
        ("pairs.tar", LFS, "damaged tar 1 times.; the first is pairs.tar: the tar is a git-lfs pointer"),
        ("pairs.tar", b"\x28\xb5\x2f\xfdjunk", "the first is pairs.tar: .*compressed with zstd"),
        ("pairs.xml", b"", "wanted a folder of images or of shards, or a file that ends in .csv"),
    ],
)
def test_an_input_that_cannot_be_used_at_all_is_one_sentence(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        build(tmp_path / name, tmp_path / "out")


def test_equal_captions_and_equal_images_have_equal_ids(tmp_path):
    write_image(tmp_path / "a.png", 1)
    write_image(tmp_path / "b.png", 1)
    write_image(tmp_path / "c.png", 2)
    (tmp_path / "pairs.csv").write_text("image,caption\na.png,x\nb.png,x\nc.png,y\n")
    build(tmp_path / "pairs.csv", tmp_path / "out")
    first, second, third = (said for _, _, said in packed(tmp_path / "out"))
    assert first["image_id"] == second["image_id"] != third["image_id"]
    assert first["caption_id"] == second["caption_id"] != third["caption_id"]


def test_no_file_under_a_final_name_is_ever_partial(tmp_path):
    def samples():
        yield Sample("0", {"txt": b"x"})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "shard-000000.tar", samples())
    assert list(tmp_path.iterdir()) == []


def test_images_in_shards_are_the_files_that_went_in(table, tmp_path):
    build(table, tmp_path / "out")
    (shard,) = find_shards([str(tmp_path / "out")])
    content = read_part(shard, open_index(shard).parts[7]["png"])
    assert content == (table.parent / "photos/7.png").read_bytes()
    assert Image.open(io.BytesIO(content)).getpixel((0, 0)) == (7, 80, 160)


def test_captions_left_out_of_a_sample_that_has_others_are_counted_beside_it(tmp_path):
    write_image(tmp_path / "photo.png")
    (tmp_path / "pairs.csv").write_text("image,caption\nphoto.png,a dog runs\nphoto.png,logo\nphoto.png,a brown dog\n")
    rules = BuildSettings(captions=CaptionRules(blacklist=("logo",)))
    build_shards([str(tmp_path / "pairs.csv")], tmp_path / "out", rules, options=SourceOptions(group=True))
    (row,) = pyarrow.parquet.read_table(tmp_path / "out" / "samples.parquet").to_pylist()
    assert row["num_captions"] == 2 and row["detail"] == "1 of 3 captions left out: blacklisted caption"
