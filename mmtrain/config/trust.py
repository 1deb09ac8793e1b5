"""Trust boundary of a config: which data places may run a command, and which may come from a stranger. No torch.

A config that came with a run, an export or another folder is data, not a wish of the user: what it says of places is
marked `Foreign`, and of those only local paths and plain addresses are read. A `pipe:` place, wherever it stands, runs
only with data.allow_pipe=true on the command line (docs/security.md).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmtrain.config.schema import SetConfig
from mmtrain.io.text import printable, redact
from mmtrain.io.urls import PIPE

Tree = dict[str, Any]

PLACES = ("data.train", "data.heldout")  # keys of paths, patterns and addresses
ALLOW_PIPE = "data.allow_pipe"
PLAIN_SCHEMES = frozenset(
    ("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "hdfs", "oci", "oss", "r2")
)
MAX_SHOWN = 60  # characters of a place in a message


class Foreign(str):
    """A place that the user did not name: it stands in a config of somebody's run, or of another folder."""


def foreign(value: Any) -> Any:
    """The same places, marked as not named by the user."""
    return _each_place(value, Foreign)


def mark_places_foreign(tree: Tree) -> None:
    """Mark the places of data in `tree` as not named by the user, in place."""
    _change_places(tree, Foreign)


def unmark_places(tree: Tree) -> None:
    """The places of data in `tree` as plain text again, in place: pydantic reads no other with names not UTF-8."""
    _change_places(tree, str)


def _change_places(tree: Tree, change: Callable[[str], str]) -> None:
    for knob in PLACES:
        section, name = key_parent(tree, knob)
        if isinstance(section, dict) and name in section:
            section[name] = _each_place(section[name], change)


def _each_place(value: Any, change: Callable[[str], str]) -> Any:
    """A value of data.train or data.heldout with every place in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, (list, tuple)):
        return [_each_place(entry, change) for entry in value]
    if isinstance(value, Mapping):
        return {key: _each_place(entry, change) if key == "shards" else entry for key, entry in value.items()}
    return value


def untrusted_faults(tree: Tree, opened: Sequence[str], *, allow_pipe: bool) -> Iterator[tuple[str, str]]:
    """Places of the keys in `opened` that would run a command, or that no stranger may name: key and sentence."""
    for knob in opened:
        section, name = key_parent(tree, knob)
        for place in _places(section.get(name) if isinstance(section, dict) else None):
            if isinstance(place, Foreign) and not _is_plain(place):
                more = f" {ALLOW_PIPE}=true" if runs_command(place) else ""
                yield (
                    knob,
                    f"{knob} is {show(place)} in a config that came with a run, an export or another folder; from "
                    "there only files and plain addresses are read. If you trust it, give it on the command line: "
                    f"{knob}=...{more}",
                )
            elif runs_command(place) and not allow_pipe:
                yield knob, f"{knob} is {show(place)}, a command; give {ALLOW_PIPE}=true on the command line to run it"


def key_parent(tree: Tree, knob: str) -> tuple[Any, str]:
    """The section of `tree` that holds a key (None where there is none), and the key's last name."""
    section, _, name = knob.rpartition(".")
    return (tree.get(section) if section else tree), name


def _places(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _places(entry)
    elif isinstance(value, dict):
        yield from _places(value.get("shards"))
    elif isinstance(value, SetConfig):
        yield from value.shards


def show(place: str) -> str:
    """A place in a message: secrets hidden, control characters visible, not longer than a line."""
    text = printable(redact(place))
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text)} characters)")


def runs_command(place: str) -> bool:
    """Whether to read a place is to run it in a shell."""
    return place.lstrip().lower().startswith(PIPE)


def is_address(place: str) -> bool:
    """Whether a place is a command or an address rather than a local path."""
    return runs_command(place) or "://" in place


def _is_plain(place: str) -> bool:
    """Whether a place is a local path, or an address that names one file of one store."""
    if "::" in place or runs_command(place):
        return False
    scheme, separator, _ = place.partition("://")
    return not separator or scheme.lower() in PLAIN_SCHEMES
