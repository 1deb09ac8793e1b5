"""JPEG header walk: orientation, and the number of scans, read off the segments before the first scan. No torch."""

import re
from typing import NamedTuple

from mmtrain.io.orientation import EXIF_PREFIX, UPRIGHT, stated_orientation

JPEG_START = b"\xff\xd8\xff"
XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
APP1, START, END, SCAN = 0xE1, 0xD8, 0xD9, 0xDA
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame, in any coding
PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
ALONE = frozenset((0x01, START, *range(0xD0, 0xD8)))  # markers without a length
SCAN_MARK = b"\xff\xda"  # inside coded data 0xff is always followed by 0 or a restart marker
_MARKER = re.compile(rb"\xff+[^\x00\xff]")


class JpegMetadata(NamedTuple):
    """What a JPEG states before its first scan, and the number of its scans."""

    orientation: int  # 1 to 8, see mmtrain.io.orientation
    num_scans: int  # at most; 1 where libjpeg reads no further one


def read_metadata(content: bytes | memoryview) -> JpegMetadata:
    """Walk the segments before the first scan; never raises.

    As libjpeg does, the walk skips bytes between segments that are no marker, so that nothing hides behind them.
    """
    position, end, num_components, is_progressive = 2, len(content), 0, False
    exif: list[bytes] = []
    xmp: list[bytes] = []
    num_scans = 1
    while position + 4 <= end:
        marker = content[position + 1]
        if content[position] != 0xFF or marker in (0x00, 0xFF):
            found = _MARKER.search(content, position)
            if found is None:
                break
            position = found.end() - 2
            continue
        if marker in ALONE:
            position += 2
            continue
        if marker == END:
            break
        length = content[position + 2] << 8 | content[position + 3]
        if marker == SCAN:
            # Only then does libjpeg read on to further scans, each over all blocks of the image.
            if is_progressive or (position + 4 < end and content[position + 4] < num_components):
                num_scans = bytes(content[position:]).count(SCAN_MARK)
            break
        if marker == APP1:
            segment = bytes(content[position + 4 : position + 2 + length])
            if segment.startswith(EXIF_PREFIX):
                exif.append(segment)
            elif segment.startswith(XMP_PREFIX):
                xmp.append(segment)
        elif marker in FRAMES and position + 9 < end:
            is_progressive |= marker in PROGRESSIVE
            num_components = content[position + 9]
        position += 2 + length
    return JpegMetadata(stated_orientation(exif, xmp) if exif or xmp else UPRIGHT, num_scans)
