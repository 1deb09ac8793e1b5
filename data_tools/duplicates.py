"""Finds images seen before: by their bytes, or by their looks."""

from array import array
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from data_tools.looks import LOOK_BYTES, SIGN_BITS

BAND_BITS = 16
NUM_BANDS = SIGN_BITS // BAND_BITS
# Looks that differ in fewer bits than there are bands agree in all of at least one band: none is missed.
MOST_BITS = NUM_BANDS - 1
MOST_COLOR_LEVELS = 20  # of 255, by which the mean colors of copies may differ in a channel


class Seen(NamedTuple):
    """An image that was there before."""

    name: str
    num_bits: int | None  # in which the looks differ; None where the bytes are the same


class SeenImages:
    """The images kept so far; some 150 bytes of memory each, 40 more for looks."""

    def __init__(self, near_bits: int | None) -> None:
        """`near_bits`: looks that differ in no more bits are the same image (0 to 7); None compares bytes only."""
        if not (near_bits is None or 0 <= near_bits <= MOST_BITS):
            raise RuntimeError(f"near_bits is {near_bits}, at most {MOST_BITS}")
        self._near_bits = near_bits
        self._digests: dict[bytes, int] = {}
        self._names: list[str] = []
        self._looks = np.zeros((1024, LOOK_BYTES), np.uint8)
        self._buckets: dict[tuple[int, int], array[int]] = {}

    def find(self, digest: bytes, look: bytes | None) -> Seen | None:
        """The first image with the same bytes, else the most alike one whose look is near enough."""
        number = self._digests.get(digest)
        if number is not None:
            return Seen(self._names[number], None)
        return self._nearest(look) if self._near_bits is not None and look else None

    def add(self, digest: bytes, look: bytes | None, name: str) -> None:
        """Remember an image that is kept."""
        number = len(self._names)
        self._names.append(name)
        self._digests.setdefault(digest, number)
        if self._near_bits is None or not look:
            return
        if number >= len(self._looks):
            self._looks = np.concatenate([self._looks, np.zeros((max(number, 1024) + 1, LOOK_BYTES), np.uint8)])
        self._looks[number] = np.frombuffer(look, np.uint8)
        for band in _bands(look):
            self._buckets.setdefault(band, array("I")).append(number)

    def _nearest(self, look: bytes) -> Seen | None:
        buckets = [self._buckets[band] for band in _bands(look) if band in self._buckets]
        if not buckets:
            return None
        numbers = np.unique(np.concatenate([np.frombuffer(bucket, np.uint32) for bucket in buckets]))
        own, others = np.frombuffer(look, np.uint8), self._looks[numbers]
        signs = SIGN_BITS // 8
        num_bits = np.bitwise_count(others[:, :signs] ^ own[:signs]).sum(1, dtype=np.int64)
        color_gap = np.abs(others[:, signs:].astype(np.int16) - own[signs:]).max(1)
        num_bits[color_gap > MOST_COLOR_LEVELS] = SIGN_BITS
        best = int(num_bits.argmin())
        if self._near_bits is None:
            raise RuntimeError("looks are searched only where near ones are asked for")
        return Seen(self._names[numbers[best]], int(num_bits[best])) if num_bits[best] <= self._near_bits else None


def _bands(look: bytes) -> Iterable[tuple[int, int]]:
    step = BAND_BITS // 8
    return ((band, int.from_bytes(look[band * step : (band + 1) * step], "big")) for band in range(NUM_BANDS))
