"""Strict JSON (RFC 8259): what is read and written holds no NaN, no infinity, no lone surrogate and no deep nesting.

Python's json accepts and writes NaN and Infinity, reads 1e999 as infinity, lets half an emoji ("\\ud83d") through,
which no encoder takes, and ends in RecursionError on deep nesting. One rule for all files: tables, KEY.json, answers.
No torch.
"""

import json
import math
import re
import sys
from typing import Any

from mmtrain.io.errors import InputError

MAX_JSON_BYTES = 16 << 20  # of a sample's KEY.json, and of a row
MAX_JSON_DEPTH = 64  # lists and objects in each other
_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class JsonError(InputError, ValueError):
    """A text is not strict JSON, or a value cannot be written as such; the message says what and where."""


def strict_json(
    content: bytes | bytearray | memoryview | str,
    *,
    max_bytes: int | None = MAX_JSON_BYTES,
    max_depth: int = MAX_JSON_DEPTH,
    allow_nan: bool = False,
) -> Any:
    """The value of a JSON text; JsonError where it is none, is too large or too deep, or holds NaN or a lone surrogate.

    `allow_nan` accepts NaN and infinities, which img2dataset and pandas write for missing numbers. A byte order mark,
    UTF-16 and UTF-32 are accepted as json.loads accepts them. Costs about what json.loads costs.
    """
    text = _decoded(content, max_bytes)
    value = _parsed(text, _LENIENT if allow_nan else _STRICT)
    # Only escapes yield surrogates, and only brackets depth: most texts need no walk through their values.
    if text.count("[") + text.count("{") > max_depth or _SURROGATE_ESCAPE.search(text) or _SURROGATE.search(text):
        _refuse(value, max_depth, allow_nan=allow_nan)
    return value


def lenient_json(
    content: bytes | bytearray | memoryview | str, *, max_bytes: int | None = None, unique_names: bool = False
) -> Any:
    """The value of a JSON text in which single values may be unfit, for `json_fault` to name; JsonError if no JSON.

    For files of many records, where one bad value rejects its record and not the file. With `unique_names` JsonError
    where an object has two values of one name, of which json.loads keeps the last.
    """
    return _parsed(_decoded(content, max_bytes), _UNIQUE if unique_names else _LENIENT)


def json_fault(value: Any, *, max_depth: int = MAX_JSON_DEPTH, allow_nan: bool = False) -> str:
    """What keeps a value from being strict JSON, with its place, as "NaN at .score[2]"; empty where nothing does."""
    waiting: list[tuple[Any, str, int]] = [(value, "", 0)]
    while waiting:
        one, place, depth = waiting.pop()
        if depth >= max_depth and isinstance(one, dict | list | tuple):
            return f"more than {max_depth} levels deep"
        if isinstance(one, str):
            if found := _SURROGATE.search(one):
                return f"a lone surrogate ({ascii(found[0])[1:-1]}) at {place or 'the top'}"
        elif isinstance(one, dict):
            for name, inner in one.items():
                if not isinstance(name, str):
                    return f"a name that is {type(name).__name__}, not text, at {place or 'the top'}"
                if found := _SURROGATE.search(name):
                    return f"a lone surrogate ({ascii(found[0])[1:-1]}) in a name at {place or 'the top'}"
                waiting.append((inner, f"{place}.{name}", depth + 1))
        elif isinstance(one, list | tuple):
            waiting += [(inner, f"{place}[{number}]", depth + 1) for number, inner in enumerate(one)]
        elif isinstance(one, float) and not math.isfinite(one) and not allow_nan:
            return f"{_name_of(one)} at {place or 'the top'}"
        elif one is not None and not isinstance(one, bool | int | float):
            return f"{type(one).__name__}, which JSON cannot hold, at {place or 'the top'}"
    return ""


def strict_dumps(value: Any) -> str:
    """`value` as strict JSON in ASCII; JsonError naming what JSON cannot hold."""
    _refuse(value, MAX_JSON_DEPTH)
    return json.dumps(value, allow_nan=False)


def _decoded(content: bytes | bytearray | memoryview | str, max_bytes: int | None) -> str:
    if max_bytes is not None and len(content) > max_bytes:
        raise JsonError(f"{len(content)} bytes, at most {max_bytes}")
    if isinstance(content, str):
        return content
    content = bytes(content)
    try:
        return content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as error:
        raise JsonError(f"not UTF-8 text (byte {error.start}: {error.reason})") from error


def _parsed(text: str, decoder: json.JSONDecoder) -> Any:
    try:
        return decoder.decode(text)
    except JsonError:
        raise
    except RecursionError as error:
        raise JsonError("nested too deeply to be read") from error
    except ValueError as error:
        if "int_max_str_digits" in str(error):  # Python reads no longer ones, which would take quadratic time
            raise JsonError(f"holds a whole number of more than {sys.get_int_max_str_digits()} digits") from error
        raise JsonError(f"not JSON ({error})") from error


def _refuse(value: Any, max_depth: int, *, allow_nan: bool = False) -> None:
    if fault := json_fault(value, max_depth=max_depth, allow_nan=allow_nan):
        raise JsonError(f"holds {fault}")


def _with_unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise JsonError(f"holds the name {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def _no_constant(name: str) -> float:
    raise JsonError(f"holds {name}, which is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise JsonError(f"holds {digits[:40]}, which no 64-bit number can be")
    return number


def _name_of(number: float) -> str:
    return "NaN" if math.isnan(number) else "-Infinity" if number < 0 else "Infinity"


_STRICT = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
_LENIENT = json.JSONDecoder()
_UNIQUE = json.JSONDecoder(object_pairs_hook=_with_unique_names)
