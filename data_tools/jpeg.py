"""What a JPEG says of itself before its pixels: how it is turned, and in how many passes it must be decoded."""

import struct
from dataclasses import dataclass

ORIENTATION_TAG = 0x0112  # EXIF; 1 is upright
UPRIGHT = 1
START, END, SCAN, EXIF_SEGMENT = 0xD8, 0xD9, 0xDA, 0xE1
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
ALONE = {0x01, START, *range(0xD0, 0xD8)}  # markers without a length
# Encoders write some ten; each costs a walk over all coefficients, and a small file may ask for thousands.
MAX_SCANS = 64
SCAN_MARK = b"\xff\xda"  # inside coded pixels 0xff is always followed by 0


@dataclass(frozen=True)
class JpegNotes:
    """What stands before the pixels."""

    orientation: int  # 1 to 8, as in EXIF
    num_scans: int  # at most, where they can be many for few bytes; pictures inside the notes count too


def read_notes(content: bytes) -> JpegNotes:
    """Walk the segments before the first scan; notes that make no sense turn nothing."""
    orientation, position, is_progressive = UPRIGHT, 2, False
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker in (SCAN, END):
            break
        if marker in ALONE or marker == 0xFF:
            position += 1 if marker == 0xFF else 2
            continue
        size = int.from_bytes(content[position + 2 : position + 4], "big")
        is_progressive |= marker in PROGRESSIVE
        if marker == EXIF_SEGMENT and content[position + 4 : position + 10] == b"Exif\0\0" and orientation == UPRIGHT:
            orientation = _orientation(content[position + 10 : position + 2 + size])
        position += 2 + size
    # Only a progressive scan can pass over many blocks in a few bits.
    return JpegNotes(orientation, content.count(SCAN_MARK) if is_progressive else 1)


def _orientation(tiff: bytes) -> int:
    """The orientation in the first directory of a TIFF block."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return UPRIGHT
    try:
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, first)
        for entry in range(first + 2, min(first + 2 + 12 * count, len(tiff)), 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == ORIENTATION_TAG and kind == 3:
                return value if 1 <= value <= 8 else UPRIGHT
    except struct.error:
        pass
    return UPRIGHT
