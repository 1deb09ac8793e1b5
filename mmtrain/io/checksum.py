"""A file being written, with the count and the SHA-256 of its bytes. No torch."""

import hashlib
from typing import BinaryIO


class ChecksumWriter:
    """Hands bytes on to a file, front to back, and knows what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest, self.num_bytes = file, hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        """Append `content`."""
        self._file.write(content)
        self._digest.update(content)
        self.num_bytes += len(content)
        return len(content)

    def sha256(self) -> str:
        """Of all that was written, in hex."""
        return self._digest.hexdigest()
