"""Where samples come from: Parquet, COCO and VQA, tars of other tools, addresses."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from data_tools.build import BuildSettings, build_shards
from data_tools.pack import Sample, write_shard
from data_tools.rows import Inside, Url, locate
from data_tools.selection import CutRules
from data_tools.sources import SourceOptions, read_rows
from data_tools.tables import Columns
from data_tools.verify import verify_shards
from mmtrain.data.index import DataError, find_shards, open_index, read_part


def picture(level: int = 0) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (24, 16), (level % 256, 80, 160)).save(written, "PNG")
    return written.getvalue()


def packed(folder: Path) -> list[tuple[str, str, dict]]:
    """Key, caption and metadata of every sample."""
    found = []
    for shard in find_shards([str(folder)]):
        index = open_index(shard)
        for key, parts in zip(index.keys, index.parts, strict=True):
            found.append((key, read_part(shard, parts["txt"]).decode(), json.loads(read_part(shard, parts["json"]))))
    return found


def left_out(folder: Path) -> list[tuple[str, str, str]]:
    lines = (folder / "left_out.jsonl").read_text().splitlines()
    return [(one["source"], one["reason"], one["detail"]) for one in map(json.loads, lines)]


def test_parquet_gives_paths_captions_lists_of_captions_and_kept_columns(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    rows = {"image": ["a.png", "a.png"], "caption": [["one", "two"], None], "license": ["by", None], "other": [1, 2]}
    parquet.write_table(pa.table(rows), tmp_path / "pairs.parquet")
    options = SourceOptions(Columns(keep=("license",)))
    first, second = read_rows([str(tmp_path / "pairs.parquet")], options)
    assert (first.image, first.captions, first.facts) == (tmp_path / "a.png", ("one", "two"), {"license": "by"})
    assert (second.captions, second.facts, second.number) == ((), None, 1)


@pytest.mark.parametrize(
    ("name", "root", "place"),
    [
        ("b/c.jpg", "/data", Path("/data/b/c.jpg")),
        ("/x/c.jpg", "/data", Path("/x/c.jpg")),
        ("https://host/c.jpg", "/data", Url("https://host/c.jpg")),
        ("c.jpg", "https://host/train/", Url("https://host/train/c.jpg")),
        ("s3://bucket/c.jpg", "/data", Url("s3://bucket/c.jpg")),
        ("file:///x/a%20b.jpg", "/data", Path("/x/a b.jpg")),
    ],
)
def test_a_name_is_a_path_or_an_address_seen_from_the_root(name, root, place):
    assert locate(name, root) == place


def write_coco(folder: Path) -> Path:
    for number in (7, 9, 11):
        (folder / f"{number}.png").write_bytes(picture(number))
    content = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in (9, 7, 11)],
        "annotations": [
            {"image_id": 7, "id": 1, "caption": "a cat"},
            {"image_id": 9, "id": 2, "caption": "a dog"},
            {"image_id": 7, "id": 3, "caption": "one cat\u0007 here"},
        ],
    }
    (folder / "captions.json").write_text(json.dumps(content))
    return folder / "captions.json"


def write_vqa(folder: Path) -> tuple[str, str]:
    questions = {"questions": [{"image_id": 7, "question_id": 70, "question": "what animal?"}]}
    answers = {
        "annotations": [
            {
                "image_id": 7,
                "question_id": 70,
                "answer_type": "other",
                "multiple_choice_answer": "cat",
                "answers": [{"answer": "cat", "answer_id": 1}, {"answer": "kitten", "answer_id": 2}],
            }
        ]
    }
    (folder / "questions.json").write_text(json.dumps(questions))
    (folder / "annotations.json").write_text(json.dumps(answers))
    return str(folder / "questions.json"), str(folder / "annotations.json")


def test_coco_images_keep_all_their_captions_and_the_questions_about_them(tmp_path):
    options = SourceOptions(questions=(write_vqa(tmp_path),))
    build_shards([str(write_coco(tmp_path))], tmp_path / "out", BuildSettings(), options=options)
    (first_key, first, first_said), (_, second, second_said) = packed(tmp_path / "out")
    assert (first_key, first, second) == ("00000000", "a dog", "a cat")
    assert "captions" not in first_said and "questions" not in first_said
    assert second_said["captions"] == ["a cat", "one cat here"]
    (question,) = second_said["questions"]
    assert (question["question"], question["answer"], question["answers"]) == ("what animal?", "cat", ["cat", "kitten"])
    assert left_out(tmp_path / "out") == [("11.png", "missing caption", "")]


def test_apart_makes_a_sample_of_each_caption_with_one_image_id(tmp_path):
    settings = BuildSettings(cut=CutRules(apart=True))
    build_shards([str(write_coco(tmp_path))], tmp_path / "out", settings)
    (_, first, _), (key, second, said), (other_key, third, other_said) = packed(tmp_path / "out")
    assert (first, second, third) == ("a dog", "a cat", "one cat here")
    assert (key, other_key) == ("00000001-0", "00000001-1")
    assert said["image_id"] == other_said["image_id"] and said["caption_id"] != other_said["caption_id"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ('{"images": []}', "no list 'annotations'"),
        ('{"images": [{"id": 1}], "annotations": []}', "without 'file_name'"),
        ('{"images": [], "annotations": [7]}', "no list 'annotations'"),
    ],
)
def test_a_json_that_is_no_coco_file_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "captions.json").write_text(content)
    with pytest.raises(DataError, match=sentence):
        read_rows([str(tmp_path / "captions.json")], SourceOptions())


def test_answers_of_other_questions_are_refused(tmp_path):
    questions, annotations = write_vqa(tmp_path)
    Path(questions).write_text(Path(questions).read_text().replace("70", "71"))
    with pytest.raises(DataError, match="does not answer question 71"):
        read_rows([str(write_coco(tmp_path))], SourceOptions(questions=((questions, annotations),)))


def test_rows_of_one_image_become_one_sample_where_asked(tmp_path):
    (tmp_path / "pairs.csv").write_text("image,caption\na.png,one\nb.png,two\na.png,three\n")
    first, second = read_rows([str(tmp_path / "pairs.csv")], SourceOptions(group=True))
    assert (first.captions, second.captions) == (("one", "three"), ("two",))
    assert [first.number, second.number] == [0, 1]


def test_several_inputs_are_read_one_after_the_other(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"image,caption\n{name}.png,{name}\n")
    rows = read_rows([str(tmp_path / "b.csv"), str(tmp_path / "a.csv")], SourceOptions())
    assert [(row.number, row.source) for row in rows] == [(0, "b.png"), (1, "a.png")]


def test_tars_are_cut_anew_with_what_their_json_says(tmp_path):
    samples = [
        Sample("x/1", {"png": picture(1), "txt": b"first", "json": b'{"url": "http://h/1", "bad": "a\\u001bb"}'}),
        Sample("x/2", {"png": picture(2), "json": b'{"caption": "from json", "status": "success"}'}),
        Sample("x/3", {"png": picture(3), "json": b'{"caption": 7}'}),
        Sample("x/4", {"png": picture(4), "txt": b"torn", "json": b"{"}),
    ]
    write_shard(tmp_path / "old-000000.tar", samples)
    build_shards([str(tmp_path / "old-{000000..000000}.tar")], tmp_path / "out", BuildSettings())
    (_, first, said), (_, second, other) = packed(tmp_path / "out")
    assert (first, said["url"], said["bad"], said["source"]) == ("first", "http://h/1", "a b", "old-000000.tar/x/1")
    assert (second, other["status"]) == ("from json", "success")
    assert [one[:2] for one in left_out(tmp_path / "out")] == [
        ("old-000000.tar/x/3", "caption is not text"),
        ("old-000000.tar/x/4", "broken .json"),
    ]


def test_sets_of_ours_cut_anew_keep_captions_questions_and_where_they_came_from(tmp_path):
    options = SourceOptions(questions=(write_vqa(tmp_path),))
    build_shards([str(write_coco(tmp_path))], tmp_path / "out", BuildSettings(), options=options)
    build_shards([str(tmp_path / "out")], tmp_path / "again", BuildSettings(cut=CutRules(1)))
    before, after = (dict((said["source"], said) for _, _, said in packed(tmp_path / n)) for n in ("out", "again"))
    assert before == after and len(list((tmp_path / "again").glob("*.tar"))) == 2


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, link
    tar.addfile(member, io.BytesIO(content))


def test_links_climbing_paths_and_code_in_tars_are_refused_by_name_and_the_rest_is_used(tmp_path):
    with tarfile.open(tmp_path / "odd.tar", "w") as tar:
        add(tar, "folder", kind=tarfile.DIRTYPE)
        add(tar, "good.png", picture(1))
        add(tar, "good.txt", b"fine")
        add(tar, "good.pkl", b"cos\nsystem\n")
        add(tar, "/etc/own.png", picture(2))
        add(tar, "/etc/own.txt", b"absolute")
        add(tar, "../../up.png", picture(3))
        add(tar, "link.png", kind=tarfile.SYMTYPE, link="/etc/passwd")
        add(tar, "hard.png", kind=tarfile.LNKTYPE, link="good.png")
        add(tar, "pipe.png", kind=tarfile.FIFOTYPE)
        add(tar, "run.sh", b"rm -rf /")
        add(tar, "weights.tar.npy", b"x")
    build_shards([str(tmp_path / "odd.tar")], tmp_path / "out", BuildSettings())
    assert [caption for _, caption, _ in packed(tmp_path / "out")] == ["fine"]
    refused = {source.removeprefix("odd.tar/"): why for source, reason, why in left_out(tmp_path / "out")}
    assert {reason for _, reason, _ in left_out(tmp_path / "out")} == {"refused member"}
    assert refused == {
        "good.pkl": "may bear code (.pkl)",
        "/etc/own.png": "has an absolute path",
        "/etc/own.txt": "has an absolute path",
        "../../up.png": "climbs out of the tar",
        "link.png": "is a symbolic link",
        "hard.png": "is a hard link",
        "pipe.png": "is neither a file nor a folder",
        "run.sh": "may bear code (.sh)",
        "weights.tar.npy": "may bear code (.npy)",
    }
    with tarfile.open(next((tmp_path / "out").glob("*.tar"))) as tar:
        assert tar.getnames() == ["00000000.png", "00000000.txt", "00000000.json"]


def test_a_caption_may_lie_beside_the_image_in_any_tar(tmp_path):
    write_shard(tmp_path / "s.tar", [Sample("k", {"png": picture(), "txt": b"words"})])
    (row,) = read_rows([str(tmp_path)], SourceOptions())
    assert isinstance(row.image, Inside) and read_part(row.image.tar, open_index(row.image.tar).parts[0]["png"])
    assert (row.image.offset, row.image.size) == (512, len(picture()))


KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "val2014", "filename": "a.png", "cocoid": 7, "imgid": 0, "split": "test", "sentids": [1, 2],
            "sentences": [
                {"tokens": ["a", "cat"], "raw": "A cat.", "imgid": 0, "sentid": 1},
                {"tokens": ["one", "cat"], "raw": "One cat", "imgid": 0, "sentid": 2},
            ],
        },
        {
            "filepath": "train2014", "filename": "b.png", "cocoid": 9, "imgid": 1, "split": "restval", "sentids": [3],
            "sentences": [{"tokens": ["a", "dog"], "raw": "A dog", "imgid": 1, "sentid": 3}],
        },
    ],
}  # fmt: skip


def test_karpathys_splits_are_taken_by_name_with_captions_as_written_and_questions(tmp_path):
    (tmp_path / "dataset_coco.json").write_text(json.dumps(KARPATHY))
    place, questions = str(tmp_path / "dataset_coco.json"), write_vqa(tmp_path)
    (row,) = read_rows([place], SourceOptions(splits=("test",), questions=(questions,)))
    assert (row.image, row.captions) == (tmp_path / "val2014/a.png", ("A cat.", "One cat"))
    assert row.facts["coco_id"] == 7 and row.facts["questions"][0]["answers"] == ["cat", "kitten"]
    rows = read_rows([place], SourceOptions(splits=("restval", "test")))
    assert [row.facts for row in rows] == [{"coco_id": 7}, {"coco_id": 9}]
    with pytest.raises(DataError, match=r"holds the splits test \(1 images\), restval \(1 images\); .* --split NAME"):
        read_rows([place], SourceOptions())
    with pytest.raises(DataError, match="has no split 'train'"):
        read_rows([place], SourceOptions(splits=("train",)))


def test_flickr30k_comes_as_karpathys_json_as_a_table_or_as_tokens(tmp_path):
    image = {"filename": "1.jpg", "split": "train", "imgid": 0, "sentences": [{"raw": "Two dogs", "sentid": 0}]}
    (tmp_path / "dataset_flickr30k.json").write_text(json.dumps({"images": [image], "dataset": "flickr30k"}))
    table = 'raw,sentids,split,filename,img_id\n"[""Two dogs"", ""Dogs, two""]","[0, 1]",train,1.jpg,0\n'
    (tmp_path / "flickr_annotations_30k.csv").write_text(table)
    (tmp_path / "results.token").write_text("1.jpg#0\tTwo dogs\n1.jpg#1\tDogs, two\n2.jpg#0\tA cat\n")
    train, images = SourceOptions(splits=("train",)), str(tmp_path)
    (row,) = read_rows([f"{images}/dataset_flickr30k.json"], train)
    assert (row.source, row.captions, row.facts) == ("1.jpg", ("Two dogs",), None)
    (row,) = read_rows([f"{images}/flickr_annotations_30k.csv"], train)
    assert (row.image, row.captions) == (tmp_path / "1.jpg", ("Two dogs", "Dogs, two"))
    first, second = read_rows([f"{images}/results.token"], SourceOptions())
    assert (first.captions, second.captions) == (("Two dogs", "Dogs, two"), ("A cat",))
    assert second.image == tmp_path / "2.jpg"
    (tmp_path / "torn.token").write_text("1.jpg Two dogs\n")
    with pytest.raises(DataError, match="torn.token, line 1: '1.jpg Two dogs' is not IMAGE#NUMBER"):
        read_rows([f"{images}/torn.token"], SourceOptions())


def test_nocaps_keeps_the_domain_and_the_number_that_its_server_knows(tmp_path):
    (tmp_path / "0013ea.png").write_bytes(picture())
    image = {"id": 0, "open_images_id": "0013ea", "file_name": "0013ea.png", "domain": "near-domain", "license": 0,
             "coco_url": "https://host/0013ea.png", "width": 24, "height": 16}  # fmt: skip
    said = [{"image_id": 0, "id": 0, "caption": "A baby."}, {"image_id": 0, "id": 1, "caption": "A small baby."}]
    content = {"licenses": [], "info": {}, "images": [image], "annotations": said}
    (tmp_path / "nocaps_val_4500_captions.json").write_text(json.dumps(content))
    (row,) = read_rows([str(tmp_path / "nocaps_val_4500_captions.json")], SourceOptions())
    assert row.captions == ("A baby.", "A small baby.")
    assert row.facts == {"coco_id": 0, "domain": "near-domain", "open_images_id": "0013ea"}


def test_questions_without_their_image_are_named_and_all_of_them_refused(tmp_path):
    questions, annotations = write_vqa(tmp_path)
    asked = json.loads(Path(questions).read_text())
    asked["questions"].append({"image_id": 99, "question_id": 990, "question": "where?"})
    Path(questions).write_text(json.dumps(asked))
    options = SourceOptions(questions=((questions, None),))
    build_shards([str(write_coco(tmp_path))], tmp_path / "out", BuildSettings(), options=options)
    assert ("question 990", "question without its image", "image 99") in left_out(tmp_path / "out")
    asked["questions"] = asked["questions"][1:]
    Path(questions).write_text(json.dumps(asked))
    with pytest.raises(DataError, match="none of the 1 questions of --vqa is about an image of"):
        read_rows([str(write_coco(tmp_path))], options)


def test_test_images_without_captions_are_built_for_their_questions(tmp_path):
    (tmp_path / "7.png").write_bytes(picture(7))
    images = {"images": [{"id": 7, "file_name": "7.png"}, {"id": 8, "file_name": "8.png"}]}
    (tmp_path / "image_info_test.json").write_text(json.dumps(images))
    options = SourceOptions(questions=((write_vqa(tmp_path)[0], None),))
    build_shards([str(tmp_path / "image_info_test.json")], tmp_path / "out", BuildSettings(), options=options)
    (shard,) = find_shards([str(tmp_path / "out")])
    (parts,) = open_index(shard).parts
    said = json.loads(read_part(shard, parts["json"]))
    assert "txt" not in parts and said["questions"] == [{"question": "what animal?", "question_id": 70}]
    assert left_out(tmp_path / "out") == [("8.png", "missing caption", "")]
    assert verify_shards([str(tmp_path / "out")], 1).faults == ()
    build_shards([str(tmp_path / "out")], tmp_path / "again", BuildSettings())
    assert "txt" not in open_index(find_shards([str(tmp_path / "again")])[0]).parts[0]
