"""`mmdata` as a user runs it: 2,000 files of which 20 are broken, and every command's exit code and sentence."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import webdataset
from PIL import Image

ROOT = Path(__file__).parents[2]
NUM_FILES = 2000
KINDS = (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"))
LIMIT_SECONDS = 120


def mmdata(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `mmdata WORDS` to its end."""
    command = [sys.executable, "-m", "data_tools", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS)


def refusal(*words: object) -> str:
    """The one line that a refused command says."""
    done = mmdata(*words)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A table of 2,000 images, and the 20 that cannot be used with the reason why."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for number in range(NUM_FILES):
        extension, kind = KINDS[number % 3]
        image = Image.linear_gradient("L").resize((40 + number % 5, 32)).convert("RGB")
        image.putpixel((0, 0), (number % 256, number // 256, 0))
        written = io.BytesIO()
        image.save(written, kind)
        (folder / f"{number:04d}.{extension}").write_bytes(written.getvalue())
        rows.append({"image": f"{number:04d}.{extension}", "caption": f"gradient number {number}"})
    broken = {}
    for place, number in enumerate(range(50, NUM_FILES, 97)):
        if len(broken) < 20:
            broken[rows[number]["image"]] = _break(folder, rows[number], way=place % 6)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "pairs.jsonl", broken


def _break(folder: Path, row: dict[str, str], way: int) -> str:
    path = folder / row["image"]
    if way == 0:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return "broken image"
    if way == 1:
        path.write_text("this was a picture once")
        return "not a JPEG, PNG or WebP image"
    if way == 2:
        path.write_bytes(b"")
        return "empty file"
    if way == 3:
        path.unlink()
        return "missing file"
    row.pop("caption")
    if way == 5:
        row["caption"] = " "
    return "missing caption"


@pytest.fixture(scope="module")
def built(photos, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("built") / "shards"
    return out, mmdata("build", photos[0], out, "--samples-per-shard", 300, "--processes", 2)


def test_the_sound_1980_of_2000_files_are_read_back_by_webdataset(photos, built):
    out, done = built
    assert done.returncode == 0, done.stderr
    shards = [str(shard) for shard in sorted(out.glob("*.tar"))]
    assert len(shards) == 7
    samples = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode("pil")
    seen = {}
    for sample in samples.to_tuple("jpg;png;webp", "txt", "json", "__key__"):
        image, caption, said, key = sample
        assert image.size == (40 + int(key) % 5, 32)
        assert caption == f"gradient number {int(key)}"
        seen[said["source"]] = caption
    assert len(seen) == 1980
    assert not set(seen) & set(photos[1])


def test_the_report_names_the_20_with_their_reasons(photos, built):
    out, done = built
    listed = [json.loads(line) for line in (out / "left_out.jsonl").read_text().splitlines()]
    assert {one["source"]: one["reason"] for one in listed} == photos[1]
    assert len(listed) == 20 and all(int(Path(one["source"]).stem) == int(one["key"]) for one in listed)
    assert "1980 pairs in 7 shards" in done.stdout and "20 left out" in done.stdout
    for reason in set(photos[1].values()):
        assert reason in done.stdout


def test_strict_says_by_its_exit_code_that_some_were_left_out(photos, tmp_path):
    assert mmdata("build", photos[0], tmp_path / "out", "--strict").returncode == 3
    assert len(list((tmp_path / "out").glob("*.tar"))) == 2


def test_strict_is_content_where_nothing_is_left_out(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "pairs.csv").write_text("image,caption\na.png,a square\n")
    done = mmdata("build", tmp_path / "pairs.csv", tmp_path / "out", "--strict")
    assert done.returncode == 0 and "left out" not in done.stdout


def test_synth_tokenizer_inspect_and_verify_work_one_after_the_other(tmp_path):
    made = mmdata("synth", tmp_path, "--num-train", 300, "--num-heldout", 40, "--objects", 2, 3, "--seed", 5)
    assert made.returncode == 0, made.stderr
    assert "300" in made.stdout and "40" in made.stdout
    trained = mmdata("tokenizer", tmp_path / "train", "--out", tmp_path / "t.model", "--vocab-size", 512)
    assert trained.returncode == 0 and (tmp_path / "t.model").exists(), trained.stderr
    shown = mmdata("inspect", tmp_path / "train", "--sheet", tmp_path / "sheet.png")
    assert shown.returncode == 0 and "64 x 64 (300)" in shown.stdout, shown.stderr
    assert Image.open(tmp_path / "sheet.png").width > 500
    assert mmdata("verify", tmp_path / "train", tmp_path / "heldout").returncode == 0


def test_verify_ends_with_1_and_names_shard_and_key_of_the_damage(tmp_path):
    mmdata("synth", tmp_path, "--num-train", 20, "--num-heldout", 0)
    tar = tmp_path / "train/train-000000.tar"
    content = bytearray(tar.read_bytes())
    content[512] ^= 0xFF  # the first byte of the first image
    tar.write_bytes(content)
    done = mmdata("verify", tmp_path / "train")
    assert done.returncode == 1
    assert "train-000000.tar: 00000000: not a JPEG" in done.stdout


def test_bad_input_is_one_sentence_that_names_what_to_change(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "pairs.csv").write_text("picture,caption\n")
    assert "--image-column" in refusal("build", tmp_path / "pairs.csv", tmp_path / "out")
    assert "nowhere.csv" in refusal("build", tmp_path / "nowhere.csv", tmp_path / "out")
    assert "no usable pair" in refusal("build", tmp_path / "empty", tmp_path / "out")
    assert "no .tar file" in refusal("inspect", tmp_path / "empty")
    assert "no .tar file" in refusal("verify", tmp_path / "empty")
    assert "nowhere" in refusal("tokenizer", tmp_path / "nowhere", "--out", tmp_path / "t.model")
    assert "--num-train" in refusal("synth", tmp_path / "s", "--num-train", "many")
    assert "both 0" in refusal("synth", tmp_path / "s", "--num-train", 0, "--num-heldout", 0)
    assert "invalid choice: 'bild'" in refusal("bild")
    assert "is no folder" in refusal("synth", tmp_path / "pairs.csv" / "x")


def test_parts_are_built_apart_and_merged_into_the_same_bytes(photos, built, tmp_path):
    rules = ("--samples-per-shard", 300, "--processes", 1)
    for part in ("0/2", "1/2"):
        done = mmdata("build", photos[0], tmp_path / "out", *rules, "--part", part)
        assert done.returncode == 0 and "mmdata merge" in done.stdout, done.stderr
    assert "1980 pairs in 7 shards" in mmdata("merge", tmp_path / "out", "--processes", 1).stdout
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (built[0], tmp_path / "out")]
    assert files[0] == files[1]


def test_inspect_writes_a_report_that_shows_histograms_and_pictures_and_hides_no_markup(tmp_path):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    (tmp_path / "pairs.jsonl").write_text('{"image": "a.png", "caption": "<script>alert(1)</script>"}\n{}\n')
    mmdata("build", tmp_path / "pairs.jsonl", tmp_path / "out")
    assert mmdata("inspect", tmp_path / "out", "--report", tmp_path / "report.html").returncode == 0
    page = (tmp_path / "report.html").read_text()
    assert "&lt;script&gt;" in page and "<script" not in page
    assert page.count("<svg") == 4 and "data:image/jpeg;base64," in page and "missing image" in page
    assert "--report" in refusal("inspect", tmp_path / "out", "--report", tmp_path / "report.pdf")


def test_shards_of_another_tool_are_indexed_and_verified(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "theirs-0.tar")) as tar:
        for number in range(5):
            image = Image.new("RGB", (20 + number, 20), (number, 0, 0))
            tar.write({"__key__": f"s/{number}", "png": image, "txt": f"image {number}", "json": {"number": number}})
    assert "no manifest.json" in mmdata("verify", tmp_path).stdout
    done = mmdata("index", tmp_path)
    assert done.returncode == 0 and "5 samples in 1 shards indexed" in done.stdout, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"theirs-0.tar", "theirs-0.tar.index", "manifest.json"}
    assert mmdata("verify", tmp_path).returncode == 0
    assert "--overwrite" in refusal("index", tmp_path)


def test_verify_names_equal_images_where_asked(tmp_path):
    for name, color in (("a", "red"), ("b", "red"), ("c", "blue")):
        Image.new("RGB", (20, 20), color).save(tmp_path / f"{name}.png")
    (tmp_path / "pairs.csv").write_text("image,caption\na.png,one\nb.png,two\nc.png,three\n")
    mmdata("build", tmp_path / "pairs.csv", tmp_path / "out")
    plain = mmdata("verify", tmp_path / "out")
    assert plain.returncode == 0 and "1 images have the bytes of another" in plain.stdout
    asked = mmdata("verify", tmp_path / "out", "--duplicates", "exact")
    assert asked.returncode == 1
    assert "shard-000000.tar: 00000001: has the same image as shard-000000.tar: 00000000" in asked.stdout


def test_flags_that_make_no_sense_are_one_sentence(tmp_path):
    (tmp_path / "pairs.csv").write_text("image,caption\na.png,x\n")
    words = ("build", tmp_path / "pairs.csv", tmp_path / "out")
    assert "--part" in refusal(*words, "--part", "2/2")
    assert "--bytes-per-shard" in refusal(*words, "--bytes-per-shard", "many")
    assert "--dedup exact or near" in refusal(*words, "--against", tmp_path)
    assert "--max-repeat-share" in refusal(*words, "--max-repeat-share", "1.5")
    assert "questions" in refusal(*words, "--vqa", "a", "b", "c")
    assert "no unfinished build" in refusal("merge", tmp_path)
