"""What a table may name, and what is said of the rest."""

import os
from pathlib import Path

import pytest

from data_tools.build import BuildSettings, Earlier, Effort, build_shards
from data_tools.cli import main
from data_tools.confine import OTHER_SCHEME, OUTSIDE_ROOT, TableRules
from data_tools.fetch import PRIVATE_ADDRESS, FetchRules
from data_tools.sources import SourceOptions, read_rows
from mmtrain.data.index import DataError, read_manifest
from tests.unit.data_tools.test_fetch import FAST, Site, site  # noqa: F401
from tests.unit.data_tools.test_sources import left_out, packed, picture

DEFAULT, PUBLIC_ONLY = TableRules(), FetchRules(threads=2, retries=0, timeout_seconds=2.0)


def table_of(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "pairs.csv").write_text("".join(["image,caption\n", *(f'"{name}",words\n' for name in names)]))
    return folder / "pairs.csv"


@pytest.fixture
def set_of_images(tmp_path: Path) -> Path:
    """A folder with images, beside another one that is none of the table's business."""
    for number, name in enumerate(("in/a.png", "in/sub/b.png", "out/c.png")):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    (tmp_path / "data" / "in" / "link").symlink_to(tmp_path / "data" / "out")
    (tmp_path / "data" / "alias").symlink_to(tmp_path / "data" / "in")
    return tmp_path / "data"


def faults(folder: Path, root: str | None, *names: str, rules: TableRules = DEFAULT) -> list[str]:
    options = SourceOptions(image_root=root, table=rules)
    return [row.fault for row in read_rows([str(table_of(folder, *names))], options)]


def test_paths_below_the_root_are_read_however_they_are_written(set_of_images: Path, monkeypatch) -> None:
    below = ["a.png", "./sub/b.png", "sub/../a.png", f"{set_of_images}/in/a.png", f"file://{set_of_images}/in/a.png"]
    assert faults(set_of_images / "in", None, *below, "link/c.png") == [""] * 6
    assert faults(set_of_images / "alias", None, *below[:3], f"{set_of_images}/in/a.png") == [""] * 4
    assert faults(set_of_images / "out", str(set_of_images), "in/a.png", "out/../in/a.png") == [""] * 2
    monkeypatch.chdir(set_of_images / "in")
    assert faults(Path("."), None, *below) == [""] * 5
    assert faults(Path("."), "..", "out/c.png", "in/a.png") == [""] * 2


@pytest.mark.parametrize(
    "name",
    ["../out/c.png", "/etc/passwd", "file:///etc/passwd", "sub/../../out/c.png", "link/../in/a.png", "..", "~/a.png",
     "/proc/self/environ", "//etc/passwd", "a.png/../../out/c.png"],
)  # fmt: skip
def test_paths_out_of_the_root_are_refused_unless_asked(set_of_images: Path, name: str) -> None:
    assert faults(set_of_images / "in", None, name) == [OUTSIDE_ROOT if name != "link/../in/a.png" else ""]
    assert faults(set_of_images / "in", None, name, rules=TableRules(outside_root=True)) == [""]


@pytest.mark.parametrize("scheme", ["s3", "ftp", "gs", "memory", "sftp", "github"])
def test_other_schemes_are_refused_unless_asked(tmp_path: Path, scheme: str) -> None:
    name = f"{scheme.upper()}://bucket/a.png"
    assert faults(tmp_path, None, name) == [OTHER_SCHEME]
    assert faults(tmp_path, None, name, rules=TableRules(("http", scheme))) == [""]
    assert faults(tmp_path, f"{scheme}://bucket", name, "b.png", "http://h/c.png") == ["", "", ""]


def test_a_local_path_in_a_table_behind_an_address_is_refused(tmp_path: Path) -> None:
    assert faults(tmp_path, "http://host/images", "file:///etc/passwd", "/etc/passwd") == [OUTSIDE_ROOT, ""]


def test_private_addresses_in_a_table_are_refused_unless_asked(site, tmp_path: Path) -> None:  # noqa: F811
    table = table_of(tmp_path, f"{site}/image/1.png", f"{site}/turn/")
    with pytest.raises(DataError, match=rf"{PRIVATE_ADDRESS} 2 times"):
        build_shards([str(table)], tmp_path / "a", BuildSettings(), effort=Effort(fetch=PUBLIC_ONLY))
    assert not Site.asked
    assert [line[1] for line in left_out(tmp_path / "a")] == [PRIVATE_ADDRESS] * 2
    assert "--allow-private-addresses" in left_out(tmp_path / "a")[0][2]
    build_shards([str(table)], tmp_path / "b", BuildSettings(), effort=Effort(fetch=FAST))
    assert len(packed(tmp_path / "b")) == 2


def test_a_host_that_the_user_has_named_is_asked(site, tmp_path: Path) -> None:  # noqa: F811
    table, options = table_of(tmp_path, "1.png", "/2.png"), SourceOptions(image_root=f"{site}/image")
    effort = Effort(fetch=PUBLIC_ONLY)
    build_shards([str(table)], tmp_path / "out", BuildSettings(), options=options, effort=effort)
    assert len(packed(tmp_path / "out")) == 2
    build_shards([f"{site}/table/pairs.csv"], tmp_path / "remote", BuildSettings(), effort=effort)
    assert len(packed(tmp_path / "remote")) == 1  # the other name is that of the table's folder again


def test_what_was_refused_is_taken_up_once_it_is_allowed(set_of_images: Path) -> None:
    table = str(table_of(set_of_images / "in", "a.png", "../out/c.png"))
    build_shards([table], set_of_images / "first", BuildSettings())
    options = SourceOptions(table=TableRules(outside_root=True))
    earlier = Earlier(failed=set_of_images / "first")
    build_shards([table], set_of_images / "second", BuildSettings(), options=options, earlier=earlier)
    assert [int(key) for key, _, _ in packed(set_of_images / "second")] == [1]


def test_the_flags_of_mmdata_build(set_of_images: Path, site, capsys) -> None:  # noqa: F811
    table = table_of(set_of_images / "in", "a.png", "../out/c.png", f"{site}/image/9.png", "memory://bucket/no.png")
    out = set_of_images / "made"
    assert main(["build", str(table), str(out)]) == 0
    assert read_manifest(out).num_samples == 1
    assert sorted(line[1] for line in left_out(out)) == sorted([OUTSIDE_ROOT, PRIVATE_ADDRESS, OTHER_SCHEME])
    flags = ["--allow-outside-root", "--allow-private-addresses", "--allow-schemes", "memory://"]
    assert main(["build", str(table), str(out), *flags, "--overwrite"]) == 0
    assert read_manifest(out).num_samples == 3 and [line[1] for line in left_out(out)] == ["download failed"]
    assert os.path.exists(out / "manifest.json")
