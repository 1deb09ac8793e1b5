"""From a YAML file and `key=value` words to one frozen RunConfig, or to one message that says every fault."""

import contextlib
import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mmtrain.config.answers import read_answers
from mmtrain.config.bounded_yaml import YamlError, parse_yaml, read_yaml
from mmtrain.config.places import ANSWERS, PATHS, PlaceError, read_word, resolve_paths
from mmtrain.config.presets import laid_over
from mmtrain.config.schema import RunConfig, SetConfig
from mmtrain.config.section import Frozen
from mmtrain.config.trust import ALLOW_PIPE, PLACES, mark_places_foreign, unmark_places, untrusted_faults
from mmtrain.io.errors import InputError
from mmtrain.io.paths import expand_user
from mmtrain.io.text import redact

Tree = dict[str, Any]  # what YAML gives: sections within sections

MAX_SHOWN = 60  # characters of a value in a message
SECTION_WANTED = "a section of `key: value` lines"
WANTED = {  # pydantic's kinds of fault, in words; {} are filled from the fault's own context
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text (in quotes where YAML reads something else)",
    "path_type": "a path (in quotes where YAML reads something else)",
    "tuple_type": "a list of texts (in quotes where YAML reads something else)",
    "finite_number": "a finite number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "one of {expected}",
    "extra_forbidden": "nothing of that name",
    "model_type": SECTION_WANTED,
    "model_attributes_type": SECTION_WANTED,
}


class ConfigError(InputError):
    """A run that cannot start as it was told; the message lists every fault."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("this run cannot start:" + "".join(f"\n  - {fault}" for fault in self.faults))


class Refusal(NamedTuple):
    """One thing of the input that could not be read: the knob, and the sentence for the user."""

    knob: str
    sentence: str


def load_config(path: Path | None, overrides: Sequence[str]) -> RunConfig:
    """The run that a YAML file (or none) and `key.sub=value` words describe; ConfigError with every fault."""
    config, refusals = read_config(path, overrides)
    if refusals:
        raise ConfigError([refusal.sentence for refusal in refusals])
    return config


def read_config(
    path: Path | None,
    overrides: Sequence[str],
    under: Mapping[str, Any] = MappingProxyType({}),
    *,
    trusted: bool = True,
    opened: Sequence[str] = PLACES,
) -> tuple[RunConfig, list[Refusal]]:
    """The run with all that could not be read left at its default, and what that was.

    The file lies over `under`, the words over the file. Whoever wants to go on must look at the second; it is apart so
    that `check` can add its own faults. A file that is not `trusted` came with a run or an export: see
    `mmtrain.config.trust`. `opened` are the keys of places that this command reads from.
    """
    refusals: list[Refusal] = []
    tree = copy.deepcopy(dict(under))
    if path:
        of_file = _spelled_out(_read_file(path, (), trusted=trusted), refusals)
        _refuse_permission(of_file, path, refusals)
        tree = laid_over(tree, of_file)
    for override in overrides:
        tree = laid_over(tree, _spelled_out(_read_override(override, refusals), refusals))
    refusals += [Refusal(*fault) for fault in resolve_paths(tree)]
    allowed = tree.get("data", {}).get("allow_pipe") is True
    refusals += [Refusal(*fault) for fault in untrusted_faults(tree, opened, allow_pipe=allowed)]
    unmark_places(tree)
    return _validated(_with_answers(tree, refusals), refusals), refusals


def plan_of(tree: Mapping[str, Any]) -> RunConfig:
    """The run of plain values, as in the manifest of a checkpoint; ConfigError with every fault."""
    refusals: list[Refusal] = []
    config = _validated(copy.deepcopy(dict(tree)), refusals)
    if refusals:
        raise ConfigError([refusal.sentence for refusal in refusals])
    return config


def _refuse_permission(tree: Tree, path: Path, refusals: list[Refusal]) -> None:
    """Only the command line may allow commands: a file may come from anyone."""
    data = tree.get("data")
    if isinstance(data, dict) and data.pop("allow_pipe", False):
        refusals.append(
            Refusal(ALLOW_PIPE, f"{ALLOW_PIPE} is set in {path}; it counts on the command line only: {ALLOW_PIPE}=true")
        )


def _with_answers(tree: Tree, refusals: list[Refusal]) -> Tree:
    """With the content of the file that task.answers names in its place: a run keeps its answers when that is gone."""
    task = tree.get("task")
    if not isinstance(task, dict) or not isinstance(task.get("answers"), str):
        return tree
    try:
        answers = read_answers(Path(task["answers"]))
    except ValueError as error:
        refusals.append(Refusal("task.answers", str(error)))
        answers = []
    return tree | {"task": task | {"answers": answers}}


def dump_config(config: RunConfig) -> str:
    """YAML that loads back to an equal config, every knob in the order of the schema."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def knobs(section: type[Frozen] = RunConfig, prefix: str = "") -> list[str]:
    """Every dotted name that a run understands, sections not among them."""
    names: list[str] = []
    for name, field in section.model_fields.items():
        inner = _section_of(field.annotation)
        names += knobs(inner, f"{prefix}{name}.") if inner else [prefix + name]
    return names


def refuse_unknown_names(names: Sequence[str], given_by: str) -> None:
    """ConfigError unless each of `names` is a knob or a section; `given_by` is what the user wrote them after."""
    known = {*knobs(), *RunConfig.model_fields}
    faults = []
    for name in names:
        if name not in known:
            nearest = nearest_knob(name)
            faults.append(f"{given_by} {name}: {name} is no knob" + (f"; did you mean {nearest}?" if nearest else ""))
    if faults:
        raise ConfigError(faults)


def _read_file(path: Path, above: tuple[Path, ...], *, trusted: bool) -> Tree:
    """A file's tree laid over those of its `base` files; `above` are the files that led here.

    Of one that is not `trusted`, or lies in another folder than the first, places are marked as a stranger's; one
    that is not `trusted` may name no other files to read.
    """
    if path.resolve() in above:
        raise ConfigError([f"{path} is its own `base`: {' -> '.join(map(str, (*above, path.resolve())))}"])
    tree = _parsed_file(path)
    if not trusted or (above and path.resolve().parent != above[0].parent):
        mark_places_foreign(tree)
    if not trusted:
        _refuse_files_of(tree, path)
    bases = tree.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError([f"base is {_shown(bases)} in {path}; wanted the name of a config file, or a list of names"])
    merged: Tree = {}
    for base in bases:
        below = _read_file(path.parent / expand_user(base), (*above, path.resolve()), trusted=True)
        merged = laid_over(merged, below)
    # A word for a whole section is spelled out before it meets other files, so that neither swallows the other.
    return laid_over(merged, _with_words_spelled_out(tree, RunConfig))


def _refuse_files_of(tree: Tree, path: Path) -> None:
    """ConfigError where a config that came with a run names other files to be read as configs or answers."""
    task, data = tree.get("task"), tree.get("data")
    names = ["base"] if "base" in tree else []
    if isinstance(task, dict) and isinstance(task.get("answers"), str):
        names.append(ANSWERS)
    if names:
        raise ConfigError([f"{path} names other files ({', '.join(names)}); the config of a run stands alone"])
    # A cache is written to and cleaned up: one that lies elsewhere is for the user to name.
    if isinstance(data, dict) and isinstance(data.get("cache_dir"), str):
        inside = Path(expand_user(data["cache_dir"])).resolve().is_relative_to(path.parent.resolve())
        data["cache_dir"] = data["cache_dir"] if inside else None


def _parsed_file(path: Path) -> Tree:
    try:
        tree = read_yaml(path)
    except OSError as error:
        raise ConfigError([f"the config file {path} cannot be read: {error.strerror}"]) from error
    except YamlError as error:
        raise ConfigError([f"the config file {path} is not YAML: {error}"]) from error
    if tree is not None and not isinstance(tree, dict):
        raise ConfigError([f"the config file {path} holds {_shown(tree)}; wanted {SECTION_WANTED}"])
    return tree or {}


def _read_override(override: str, refusals: list[Refusal]) -> Tree:
    knob, equals, text = override.partition("=")
    if not equals or not knob:
        refusals.append(Refusal(knob, f"{_shown(override)} is not an override; write key.sub=value"))
        return {}
    try:
        value = read_word(knob, text) if knob in (*PATHS, *PLACES, ANSWERS) else parse_yaml(text)
    except YamlError as error:
        refusals.append(Refusal(knob, f"{knob} is {_shown(text)}, which is not YAML ({error}); put it in quotes"))
        return {}
    except PlaceError as error:
        refusals.append(Refusal(knob, f"{knob} {error}"))
        return {}
    for name in reversed(knob.split(".")):
        value = {name: value}
    return value


def _section_of(annotation: object) -> type[Frozen] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Frozen) else None


def _with_words_spelled_out(tree: Mapping[str, Any], section: type[Frozen]) -> Tree:
    """`recompute: full` as the section that it stands for, and a section without lines as an empty one."""
    spelled: Tree = {}
    for key, value in tree.items():
        inner = _section_of(section.model_fields[key].annotation) if key in section.model_fields else None
        if inner and value is None:
            value = {}
        elif inner and isinstance(value, str):
            with contextlib.suppress(ValidationError):  # the validation of the whole says what is wrong with it
                value = inner.model_validate(value).model_dump()
        elif inner and isinstance(value, dict):
            value = _with_words_spelled_out(value, inner)
        spelled[key] = value
    return spelled


def _spelled_out(tree: Tree, refusals: list[Refusal]) -> Tree:
    return _without_unknown(_with_words_spelled_out(tree, RunConfig), RunConfig, "", refusals)


def _without_unknown(tree: Tree, section: type[Frozen], prefix: str, refusals: list[Refusal]) -> Tree:
    known: Tree = {}
    for key, value in tree.items():
        knob, field = f"{prefix}{key}", section.model_fields.get(key)
        if field is None:
            nearest = nearest_knob(knob)
            hint = f"; did you mean {nearest}?" if nearest else ""
            refusals.append(Refusal(nearest or knob, f"{knob} is unknown{hint}"))
            continue
        inner = _section_of(field.annotation)
        nested = inner and isinstance(value, dict)
        known[key] = _without_unknown(value, inner, f"{knob}.", refusals) if nested else value
    return known


def nearest_knob(knob: str) -> str | None:
    """The knob or section that was probably meant: one of the same last name, else one alike."""
    section, _, name = knob.rpartition(".")
    names = [*knobs(), *RunConfig.model_fields]
    namesakes = [other for other in names if other.rpartition(".")[2] == name]
    siblings = {other.rpartition(".")[2]: other for other in names if other.rpartition(".")[0] == section}
    close = difflib.get_close_matches(name, siblings, n=1)
    if namesakes or close:
        return (namesakes or [siblings[close[0]]])[0]
    return next(iter(difflib.get_close_matches(knob, names, n=1)), None)


def _validated(tree: Tree, refusals: list[Refusal]) -> RunConfig:
    """The config of `tree` without the values that are not legal; those enter `refusals`."""
    for _ in range(2):
        try:
            return RunConfig.model_validate(tree)
        except ValidationError as error:
            details = error.errors()
        for detail in filter(_is_meant, details):
            refusals.append(Refusal(_drop(tree, detail["loc"]), _in_plain_words(detail)))
    return RunConfig.model_validate(tree)


def _is_meant(detail: ErrorDetails) -> bool:
    """Whether a fault is of the kind that was given: a set is text or a section, and pydantic tries both."""
    as_section, is_section = SetConfig.__name__ in detail["loc"], isinstance(detail["input"], dict)
    return not (as_section and detail["type"] in ("model_type", "model_attributes_type")) and not (
        "str" in detail["loc"] and is_section
    )


def _shown(value: object) -> str:
    """A value as a message shows it: no longer than that, and without what may be secret in its addresses."""
    return f"{redact(repr(value)):.{MAX_SHOWN}}"


def _in_plain_words(detail: ErrorDetails) -> str:
    words = [str(word) for word in detail["loc"] if word not in ("str", SetConfig.__name__)]
    knob = ".".join(words)
    if detail["type"] == "missing":
        return f"{'.'.join(words[:-1])} is {_shown(detail['input'])}, which has no {words[-1]}"
    wanted = WANTED.get(detail["type"], detail["msg"]).format(**detail.get("ctx", {}))
    return f"{knob} is {_shown(detail['input'])}; wanted {wanted}"


def _drop(tree: Tree, loc: Sequence[int | str]) -> str:
    """Take out of `tree` the innermost knob on the way of `loc`, and say its name."""
    depth = 0
    while depth < len(loc) - 1 and isinstance(tree.get(loc[depth]), dict):
        tree = tree[loc[depth]]
        depth += 1
    tree.pop(loc[depth], None)
    return ".".join(map(str, loc[: depth + 1]))
