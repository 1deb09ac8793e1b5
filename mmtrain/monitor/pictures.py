"""Contact sheets: each held-out image with its caption or question, and what was retrieved for it or said about it.

Axes: C channels, H and W pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmtrain.io.contact_sheet import FAINT, INK, Tile, draw_sheet, save_picture
from mmtrain.monitor.log import RunLog
from mmtrain.records import Shown

RIGHT, WRONG = (20, 135, 60), (190, 35, 35)


class ShownResult(NamedTuple):
    """One held-out image, what is true of it, what was found for it, and whether that is right."""

    image_CHW: np.ndarray  # uint8
    truth: str
    found: str
    is_right: bool | None  # None where nobody can tell
    headings: tuple[str, str] = ("caption", "retrieved")

    def tile(self) -> Tile:
        """What is true, then what was found, behind a mark; framed in green where it is right, in red where wrong."""
        mark, ink = {True: ("right: ", RIGHT), False: ("wrong: ", WRONG), None: ("", INK)}[self.is_right]
        heading, found_heading = self.headings
        texts = ((heading, FAINT), (self.truth, INK), (found_heading, FAINT), (f"{mark}{self.found}", ink))
        return Tile(self.image_CHW.transpose(1, 2, 0), texts, ink)


class ContactSheet:
    """Held-out images with the captions they retrieve, drawn anew after each evaluation to RUN_DIR/retrieved.png.

    What is said about them goes to RUN_DIR/answered.png.
    """

    def __init__(self, log: RunLog, images_CHW: Sequence[np.ndarray], captions: Sequence[str | None]) -> None:
        self.path = log.run_dir / "retrieved.png"
        self._log, self._images, self._captions = log, images_CHW, captions

    def draw(self, step: int, retrieved: Sequence[int]) -> None:
        """`retrieved[i]` is the held-out caption nearest to image i; on a rank that does not write, nothing happens."""
        if not self._log.writes:
            return
        shown = [
            ShownResult(image, self._captions[own] or "", self._captions[best] or "", own == best)
            for own, (image, best) in enumerate(zip(self._images, retrieved, strict=True))
        ]
        self._keep(step, "retrieved", shown)

    def draw_answers(self, step: int, shown: Sequence[Shown]) -> None:
        """What was said about those of the images that are among `shown`."""
        results = [
            ShownResult(self._images[one.sample], one.truth, one.said, one.is_right, headings=("truth", "said"))
            for one in shown
            if one.sample < len(self._images)
        ]
        if results and self._log.writes:
            self._keep(step, "answered", results)

    def _keep(self, step: int, name: str, results: Sequence[ShownResult]) -> None:
        picture_HWC = draw_sheet([result.tile() for result in results])
        save_picture(picture_HWC, self._log.run_dir / f"{name}.png")
        self._log.show(step, name, picture_HWC)
