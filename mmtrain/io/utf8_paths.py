"""Names that are not UTF-8, for libraries that take no other: safetensors, sentencepiece, tokenizers. No torch.

On Linux a name is any bytes; Python keeps those that are no UTF-8 as surrogates (PEP 383), which C++ and Rust bindings
refuse.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def utf8_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """`path` itself where its name is UTF-8, else a link to it that is there until the block ends."""
    if is_utf8(os.fspath(path)):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "link"
        link.symlink_to(os.path.abspath(path))
        yield link


def is_utf8(name: str) -> bool:
    """Whether a name can be encoded."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
