"""The tar walk against Python's tarfile, and against any bytes at all."""

import io
import tarfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mmtrain.data.tar import TarDamage, tar_members

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=40
)
FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


def packed(files: list[tuple[str, bytes]], kind: int) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=kind) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return written.getvalue()


def walked(content: bytes, folder: Path) -> list[tuple[str, bytes]]:
    path = folder / "x.tar"
    path.write_bytes(content)
    return [(member.name, content[member.offset :][: member.size]) for member in tar_members(path)]


@given(st.lists(st.tuples(NAMES.filter(lambda name: len(name.encode()) <= 100), st.binary(max_size=1500))), FORMATS)
def test_members_are_those_that_were_written(
    tmp_path_factory: object, files: list[tuple[str, bytes]], kind: int
) -> None:
    folder = tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    assert walked(packed(files, kind), folder) == files


@given(st.lists(st.tuples(st.sampled_from(["a.jpg", "n" * 150, "é.txt"]), st.binary(max_size=600))), st.data())
def test_damaged_bytes_end_in_damage_or_in_members_inside_the_file(
    tmp_path_factory: object, files: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    content = bytearray(packed(files, tarfile.GNU_FORMAT))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    (folder / "y.tar").write_bytes(content)
    try:
        for member in tar_members(folder / "y.tar"):
            assert 0 <= member.offset <= member.offset + member.size <= len(content)
    except TarDamage as damage:
        assert str(damage)
