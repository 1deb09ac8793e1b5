"""Validation of a sample's texts, by the parsers that training itself uses. No torch.

`mmdata verify` calls this, so that what it calls sound can be read.
"""

from collections.abc import Callable
from typing import TypeVar

from mmtrain.data.faults import SampleError
from mmtrain.data.question_schema import parse_questions
from mmtrain.data.table import Content, as_caption, as_captions, as_metadata

Value = TypeVar("Value")


def text_faults(caption: Content | None, metadata: Content | None) -> list[str]:
    """Why the .txt and the .json of a sample cannot be read, one reason each; empty where they are sound.

    A sample without a caption is sound where its .json holds questions.
    """
    faults: list[str] = []
    said = _value_of(lambda: as_metadata(metadata), faults) or {}
    faults += metadata_faults(said)
    if caption is not None or not said.get("questions"):
        _value_of(lambda: as_caption(caption), faults)
    return faults


def metadata_faults(said: dict) -> list[str]:
    """Why the "captions" and "questions" of a .json cannot be read, which only runs that ask for them do."""
    faults: list[str] = []
    _value_of(lambda: as_captions(said), faults)
    _value_of(lambda: parse_questions(said), faults)
    return faults


def _value_of(parse: Callable[[], Value], faults: list[str]) -> Value | None:
    try:
        return parse()
    except SampleError as error:
        faults.append(str(error))
        return None
