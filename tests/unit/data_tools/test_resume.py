"""A build goes on where it was stopped, alone or in parts, and its bytes are those of an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_tools import pack
from data_tools.build import BuildSettings, Effort, build_shards, merge_parts
from data_tools.images import ImageRules
from data_tools.selection import CutRules
from data_tools.workshop import Workshop
from mmtrain.data.index import DataError
from tests.benchmarks.web_photos import draw_photo, encode_photo

ROOT = Path(__file__).parents[3]
NUM_IMAGES = 600
RULES = ["--resize", "48", "--samples-per-shard", "37", "--dedup", "near", "--seed", "3"]
LIMIT_SECONDS = 60


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a finished build; nothing else may lie there."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """600 small pictures of which every 50th is broken and every 20th a copy of the one before."""
    folder = tmp_path_factory.mktemp("photos")
    lines, content = ["image,caption"], b""
    for number in range(NUM_IMAGES):
        if number % 20:
            content = encode_photo(draw_photo(number, (96 + number % 40, 80), 0.4), number)
        (folder / f"{number}.jpg").write_bytes(content if number % 50 else b"no picture")
        lines.append(f"{number}.jpg,picture number {number}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder / "pairs.csv"


def start(table: Path, out: Path, processes: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "data_tools", "build", table, out, *RULES, "--processes", processes]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with open(out.parent / "said", "wb") as said:
        return subprocess.Popen(
            [str(word) for word in command], cwd=ROOT, env=environment, stderr=said, stdout=said, start_new_session=True
        )


@pytest.fixture(scope="module")
def undisturbed(table, tmp_path_factory) -> tuple[dict[str, bytes], float]:
    """The files of a build that nobody stopped, and how many seconds it took."""
    out, begun = tmp_path_factory.mktemp("whole") / "out", time.monotonic()
    assert start(table, out, processes=1).wait(LIMIT_SECONDS) == 0
    seconds = time.monotonic() - begun
    files = contents(out)
    assert len(files) == 3 + 2 * len(list(out.glob("*.tar"))) and len(list(out.glob("*.tar"))) == 16
    return files, seconds


def is_finished(folder: Path) -> bool:
    return (folder / pack.MANIFEST_NAME).exists() and not (folder / pack.WORK_NAME).exists()


def check_kills(table: Path, undisturbed: tuple[dict[str, bytes], float], out: Path, moments: list[float]) -> None:
    """Kill a build of two processes at each moment (a share of its time), go on each time, and compare the end."""
    files, seconds = undisturbed
    for number, moment in enumerate(moments):
        folder = out / f"{number}"
        build = start(table, folder, processes=2)
        time.sleep(moment * seconds)
        os.killpg(build.pid, signal.SIGKILL)
        # What is killed between its last file and its exit is done all the same.
        was_done = build.wait(LIMIT_SECONDS) == 0 or is_finished(folder)
        assert not [path for path in folder.glob("*.tar") if files[path.name] != path.read_bytes()]
        if not was_done:
            code = start(table, folder, processes=1 + number % 2).wait(LIMIT_SECONDS)
            assert code == 0, (out / "said").read_text()
        assert contents(folder) == files, f"killed after {moment:.2f} of {seconds:.1f} s"


def test_a_build_killed_at_random_moments_ends_with_the_bytes_of_an_undisturbed_one(table, undisturbed, tmp_path):
    drawn = random.Random(7)
    check_kills(table, undisturbed, tmp_path, [drawn.uniform(0.25, 0.9) for _ in range(3)])


@pytest.mark.long
def test_a_build_killed_at_ten_random_moments_ends_with_the_bytes_of_an_undisturbed_one(table, undisturbed, tmp_path):
    drawn = random.Random(8)
    check_kills(table, undisturbed, tmp_path, [drawn.uniform(0.1, 1.0) for _ in range(10)])


SETTINGS = BuildSettings(ImageRules(resize=48, looks=True), cut=CutRules(37, dedup="near"), seed=3)


def test_a_crash_at_any_rename_ends_with_the_bytes_of_an_undisturbed_build(table, undisturbed, tmp_path, monkeypatch):
    rename, countdown = os.replace, [0]

    def crash(source: object, target: object) -> None:
        countdown[0] -= 1
        if countdown[0] == 0:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", crash)
    for _ in range(200):  # four renames further with each attempt, until none is left
        countdown[0] = 5
        try:
            build_shards([str(table)], tmp_path / "out", SETTINGS)
            break
        except KeyboardInterrupt:
            continue
    monkeypatch.undo()
    assert contents(tmp_path / "out") == undisturbed[0]


def test_parts_built_apart_and_merged_are_the_bytes_of_one_build(table, undisturbed, tmp_path):
    for part in (2, 0, 1):
        effort = Effort(processes=1, part=(part, 3))
        assert build_shards([str(table)], tmp_path / "out", SETTINGS, effort=effort) is None
        assert not list((tmp_path / "out").glob("*.tar"))
    merge_parts(tmp_path / "out", processes=2)
    assert contents(tmp_path / "out") == undisturbed[0]


def test_a_merge_names_what_is_missing_and_an_unknown_folder(table, tmp_path):
    build_shards([str(table)], tmp_path / "out", SETTINGS, effort=Effort(part=(1, 2)))
    with pytest.raises(DataError, match="2 of 5 chunks are not prepared, the first is chunk 0"):
        merge_parts(tmp_path / "out", processes=1)
    with pytest.raises(DataError, match="no unfinished build"):
        merge_parts(tmp_path, processes=1)
    with pytest.raises(DataError, match="work of the other parts"):
        build_shards([str(table)], tmp_path / "out", SETTINGS, effort=Effort(part=(0, 2)), overwrite=True)


def test_an_unfinished_build_is_not_taken_up_with_other_rules_unless_overwritten(table, undisturbed, tmp_path):
    build_shards([str(table)], tmp_path / "out", SETTINGS, effort=Effort(part=(0, 2)))
    other = BuildSettings(ImageRules(resize=40), cut=CutRules(37), seed=3)
    with pytest.raises(DataError, match="another input or with other settings"):
        build_shards([str(table)], tmp_path / "out", other)
    build_shards([str(table)], tmp_path / "out", other, overwrite=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"manifest.json", "shard-000000.tar"}


def test_a_finished_build_is_not_built_over_by_mistake(table, tmp_path):
    settings = BuildSettings(ImageRules(resize=32))
    build_shards([str(table)], tmp_path / "out", settings)
    with pytest.raises(DataError, match="already holds 1 shards"):
        build_shards([str(table)], tmp_path / "out", settings)
    build_shards([str(table)], tmp_path / "out", settings, overwrite=True)


def test_two_builds_are_not_at_work_on_one_folder(table, tmp_path):
    with (
        Workshop(tmp_path / "out" / pack.WORK_NAME).locked(shared=False),
        pytest.raises(DataError, match="another mmdata is at work"),
    ):
        build_shards([str(table)], tmp_path / "out", SETTINGS)


def test_shards_cut_by_bytes_stay_below_the_limit_and_hold_every_sample(table, tmp_path):
    limit = 100_000
    settings = BuildSettings(ImageRules(resize=48), cut=CutRules(None, limit))
    report = build_shards([str(table)], tmp_path / "out", settings)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "out").glob("*.tar"))]
    assert report.num_packed == NUM_IMAGES - 12 and len(sizes) > 5
    assert all(0.8 * limit < size < 1.15 * limit for size in sizes[:-1]), sizes
