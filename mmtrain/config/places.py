"""Path-typed config keys: how their text is read, expanded, checked and written down. No torch.

On the command line such a key takes its text as it is: a folder may be called 007, 2024-05-01 or "exp #1", which YAML
would read as something else. A leading ~ is expanded wherever it stands; variables such as $HOME are refused.
"""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmtrain.config.bounded_yaml import YamlError, parse_yaml
from mmtrain.config.schema import RunConfig, SetConfig
from mmtrain.config.trust import PLACES, is_address, key_parent, show
from mmtrain.io.paths import expand_user, lexists, local_fault
from mmtrain.io.text import redact

Tree = dict[str, Any]

PATHS = ("run_dir", "model.init_from", "data.tokenizer", "data.cache_dir")  # keys of one local path
ANSWERS = "task.answers"  # a file, or the answers themselves
VARIABLE = re.compile(r"\$(\w+|\{[^{}]*\})")
MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4095  # of Linux


class PlaceError(ValueError):
    """A path or place that cannot be taken; the message is for the user, behind the name of its key."""


def read_word(knob: str, text: str) -> Any:
    """The value of a path-typed key from its text on the command line; YamlError or PlaceError where it has none."""
    if knob in PATHS:
        return _read_path(knob, text)
    structured = _read_list(text)
    if structured is not None:
        return structured
    return text if text else []


def _read_path(knob: str, text: str) -> str | None:
    if not text or (text in ("null", "~") and knob != "run_dir" and not lexists(text)):
        return None
    if text[0] in "'\"" and text[-1] == text[0] and len(text) > 2 and not lexists(text):
        raise PlaceError(f"is {text}; a path is taken as it is, so leave these quotes out: {knob}={text[1:-1]}")
    return text


def _read_list(text: str) -> Any:
    """A YAML list or section, where `text` is one and no such file exists; else None, and it is one place."""
    if text[:1] not in ("[", "{") or lexists(text):
        return None
    try:
        value = parse_yaml(text, text_only=True)
    except YamlError:  # {000..009}.tar and [ab]*.tar are patterns
        return None
    if isinstance(value, dict) and not any(value.values()):  # {a,b} is a pattern too
        return None
    return _without_nulls(value)


def _without_nulls(value: Any) -> Any:
    """Sets whose weight or modality is left empty or null have none."""
    if isinstance(value, list):
        return [_without_nulls(entry) for entry in value]
    if isinstance(value, dict):
        return {key: entry for key, entry in value.items() if key == "shards" or entry not in ("null", "~", "", None)}
    return value


def resolve_paths(tree: Tree) -> Iterator[tuple[str, str]]:
    """Expand ~ in every path-typed value of `tree`, in place; yields each key and what is wrong with its value."""
    for knob in (*PATHS, *PLACES, ANSWERS):
        section, name = key_parent(tree, knob)
        if not isinstance(section, dict) or name not in section:
            continue
        value = section[name]
        if knob in PLACES and isinstance(value, (str, dict, SetConfig)):
            value = [value]
        if knob == ANSWERS and not isinstance(value, str):
            continue
        try:
            section[name] = _expanded(value, one_path=knob not in PLACES)
        except PlaceError as fault:
            del section[name]
            yield knob, f"{knob} {fault}"


def _expanded(value: Any, *, one_path: bool) -> Any:
    if isinstance(value, (str, Path)):
        return type(value)(_expand(str(value), one_path=one_path))
    if isinstance(value, list) and not one_path:
        return [_expanded(entry, one_path=False) for entry in value]
    if isinstance(value, dict) and not one_path and "shards" in value:
        shards = value["shards"]
        shards = [shards] if isinstance(shards, str) else shards
        return {**value, "shards": _expanded(shards, one_path=False)}
    return value


def _expand(place: str, *, one_path: bool) -> str:
    """A local place with ~ expanded; PlaceError where no file can have that name, or a variable is not expanded."""
    if not one_path and is_address(place):
        return place
    place = expand_user(place)
    if fault := local_fault(place):
        raise PlaceError(f"is {show(place)}: {fault}")
    if (one_path or not set(place) & set("*?[{")) and (fault := _name_fault(place)):
        raise PlaceError(f"is {show(place)}: {fault}")
    if VARIABLE.search(place) and not lexists(place):
        raise PlaceError(f"is {show(place)}: variables are not expanded here; write the path itself, or begin with ~")
    return place


def _name_fault(place: str) -> str:
    try:
        encoded = os.fsencode(place)
    except UnicodeEncodeError:
        return "no file can have that name"
    if b"\0" in encoded:
        return "no file can have that name"
    longest = max(map(len, encoded.split(b"/")))
    if longest > MAX_NAME_BYTES or len(encoded) > MAX_PATH_BYTES:
        return os.strerror(errno.ENAMETOOLONG).lower()
    return ""


def with_absolute_places(config: RunConfig) -> RunConfig:
    """The same run as seen from any folder: relative paths become those below the working directory."""
    data = config.data
    train = tuple(
        place.model_copy(update={"shards": tuple(map(_absolute, place.shards))})
        if isinstance(place, SetConfig)
        else _absolute(place)
        for place in data.train
    )
    paths = {"tokenizer": data.tokenizer, "cache_dir": data.cache_dir}
    places = {"train": train, "heldout": tuple(map(_absolute, data.heldout))}
    places |= {name: path and Path(_absolute(str(path))) for name, path in paths.items()}
    begun = config.model.init_from
    model = config.model.model_copy(update={"init_from": begun and Path(_absolute(str(begun)))})
    return config.model_copy(
        update={
            "run_dir": Path(_absolute(str(config.run_dir))),
            "model": model,
            "data": data.model_copy(update=places),
        }
    )


def without_places(config: RunConfig) -> RunConfig:
    """The same run without what only its machine knows: an export is made to be given away."""
    data = config.data.model_copy(update={"train": (), "heldout": (), "tokenizer": None, "cache_dir": None})
    model = config.model.model_copy(update={"init_from": None})
    return config.model_copy(update={"run_dir": Path(config.run_dir.name), "data": data, "model": model})


def has_secret(config: RunConfig) -> bool:
    """Whether a place of data holds something that `redact` would hide."""
    dumped = config.model_dump(mode="json")
    return redacted(dumped) != dumped


def _absolute(place: str) -> str:
    if is_address(place) or re.match(r"\{[^{}]*(?<=[{,])/", place):  # {/a,/b}/x.tar is absolute already
        return place
    return os.path.join(os.getcwd(), place)


def redacted(dumped: Mapping[str, Any]) -> dict[str, Any]:
    """A dumped config with secrets in its places hidden, for files that others read."""
    data = dumped["data"]
    return {**dumped, "data": {**data, "train": _hidden(data["train"]), "heldout": _hidden(data["heldout"])}}


def _hidden(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, (list, tuple)):
        return [_hidden(entry) for entry in value]
    return {key: _hidden(entry) if key == "shards" else entry for key, entry in value.items()}
