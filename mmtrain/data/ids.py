"""What stands for an image or a caption: 63 bits, equal for equal ones. No torch."""

import hashlib
import zlib

NUM_SAMPLED_BYTES = 1024  # of the start, the middle and the end of an image that has no name


def id_of(said: object) -> int | None:
    """What stands for a name or a text; None where nothing was said."""
    named = isinstance(said, (str, int)) and said != ""
    return _number(str(said).encode(errors="surrogatepass")) if named else None


def id_of_image(content: bytes | memoryview) -> int:
    """What stands for an image file: a checksum of it all and some of its bytes, a third of the price of a hash."""
    size, half = len(content), len(content) // 2
    ends = (content[:NUM_SAMPLED_BYTES], content[half : half + NUM_SAMPLED_BYTES], content[-NUM_SAMPLED_BYTES:])
    return _number(b"".join([size.to_bytes(8, "little"), zlib.crc32(content).to_bytes(4, "little"), *ends]))


def name_of_caption(caption: str) -> str:
    """The `caption_id` that `mmdata build` gives a caption."""
    return hashlib.blake2b(caption.encode(), digest_size=8).hexdigest()


def _number(content: bytes) -> int:
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
