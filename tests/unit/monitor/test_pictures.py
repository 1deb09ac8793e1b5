"""The contact sheet: every image with its frame, in a size that does not depend on luck."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmtrain.io.contact_sheet import Tile, draw_sheet, save_picture
from mmtrain.monitor.log import RunLog
from mmtrain.monitor.pictures import RIGHT, WRONG, ContactSheet, ShownResult
from mmtrain.records import Shown


def shown(number: int, *, is_right: bool, words: str = "a small red circle", size: tuple[int, int] = (16, 16)) -> Tile:
    image_CHW = np.full((3, *size), 40 * number, np.uint8)
    return ShownResult(image_CHW, words, words + " above a blue star", is_right).tile()


def has_color(sheet_HWC: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((sheet_HWC == np.array(color, np.uint8)).all(-1).any())


@pytest.mark.parametrize(("is_right", "there", "absent"), [(True, RIGHT, WRONG), (False, WRONG, RIGHT)])
def test_the_frame_says_whether_the_caption_is_right(
    is_right: bool, there: tuple[int, int, int], absent: tuple[int, int, int]
) -> None:
    sheet = draw_sheet([shown(1, is_right=is_right)])
    assert has_color(sheet, there) and not has_color(sheet, absent)


def test_every_image_is_on_the_sheet_and_rows_are_filled_first() -> None:
    five = [shown(number, is_right=True) for number in range(1, 6)]
    sheet, one = draw_sheet(five, columns=3), draw_sheet(five[:1])
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * one.shape[0], 3 * one.shape[1], 3)
    assert all(has_color(sheet, (40 * number,) * 3) for number in range(1, 6))


def test_a_picture_that_is_not_square_keeps_its_shape() -> None:
    sheet = draw_sheet([shown(2, is_right=True, size=(10, 40))], side_pixels=200)
    rows, columns = np.nonzero((sheet == 80).all(-1))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (50, 200)


def test_an_endless_caption_does_not_push_the_sheet_apart() -> None:
    long, longer = (draw_sheet([shown(1, is_right=False, words="many words " * n)]).shape for n in (100, 1000))
    assert long == longer


def test_a_thin_strip_is_shown() -> None:
    sheet = draw_sheet([Tile(np.full((1, 60_000, 3), 80, np.uint8), [])], side_pixels=100)
    assert has_color(sheet, (80, 80, 80))


def test_a_saved_sheet_is_a_png_of_the_same_pixels(tmp_path: Path) -> None:
    sheet = draw_sheet([shown(1, is_right=True)])
    save_picture(sheet, tmp_path / "pictures" / "sheet.png")
    assert (np.asarray(Image.open(tmp_path / "pictures" / "sheet.png")) == sheet).all()
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["sheet.png"]


def test_what_is_said_about_the_first_images_has_a_sheet_of_its_own(tmp_path: Path) -> None:
    with RunLog(tmp_path, writes=True) as log:
        sheet = ContactSheet(log, [np.full((3, 16, 16), 70, np.uint8)], ["what is it?"])
        said = Shown(0, truth="what is it? a star", said="a ring", is_right=False)
        sheet.draw_answers(1, [said, Shown(1, "beyond the pictures", "nothing", None)])
    found = np.asarray(Image.open(tmp_path / "answered.png"))
    assert has_color(found, WRONG) and has_color(found, (70, 70, 70)) and not has_color(found, RIGHT)
    unknown = draw_sheet([ShownResult(np.zeros((3, 16, 16), np.uint8), "a truth", "words", None).tile()])
    assert not has_color(unknown, WRONG) and not has_color(unknown, RIGHT)
