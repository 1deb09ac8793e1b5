"""Names that are not UTF-8 get one that is, for as long as it is wanted."""

import os
from pathlib import Path

from mmtrain.io.utf8_paths import utf8_path


def test_a_name_that_is_utf8_stays(tmp_path: Path) -> None:
    with utf8_path(tmp_path / "é") as path:
        assert path == tmp_path / "é"


def test_another_name_is_reached_by_a_link(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"d\xe9t")
    folder.mkdir()
    with utf8_path(folder) as path:
        str(path).encode()
        (path / "a").write_text("here")
    assert (folder / "a").read_text() == "here" and not path.exists() and not path.is_symlink()
