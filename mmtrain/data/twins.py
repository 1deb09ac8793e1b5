"""Foil captions ("twin" in KEY.json): captions that are false of the image, for compositional evaluation. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Twin:
    """A caption that differs from the true one in who has which attribute or place, and is false for the image."""

    caption: str
    kind: str  # what was exchanged


def as_twin(metadata: Mapping[str, Any]) -> Twin | None:
    """The foil caption of a sample; other things that its metadata calls "twin" are the user's own."""
    said = metadata.get("twin")
    if not isinstance(said, dict):
        return None
    caption, kind = said.get("caption"), said.get("kind", "")
    if not isinstance(caption, str) or not isinstance(kind, str) or not caption.strip():
        return None
    return Twin(caption, kind)
