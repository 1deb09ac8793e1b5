"""Bounded YAML: a safe loader with limits on size, depth and aliases, for configs that may come from anyone. No torch.

Plain data only (PyYAML's SafeLoader). An alias costs nothing to write and may stand for any amount of data, so what a
document would be with all aliases written out is counted before anything is built ("billion laughs").
"""

import re
from pathlib import Path
from typing import Any

import yaml

from mmtrain.io.documents import DocumentError, read_document
from mmtrain.io.text import printable

MAX_BYTES = 16 * 2**20  # a config holds the answers of a run too, and thousands of places
MAX_DEPTH = 40  # sections within sections
MAX_ALIASES = 1000
MAX_NODES = 2_000_000  # values with all aliases written out
FLOAT = re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")


class YamlError(ValueError):
    """Text that is no YAML, or beyond the limits; one line for the user."""


class _Bounded(yaml.SafeLoader):
    """YAML as people write it: 1e-3 is a number, and a key given twice is refused."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._num_aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._num_aliases += 1
            if self._num_aliases > MAX_ALIASES:
                raise YamlError(f"it has more than {MAX_ALIASES} aliases")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise YamlError(f"it is nested more than {MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _num_nodes(node, {}) > MAX_NODES:
            raise YamlError(f"its aliases stand for more than {MAX_NODES:,} values")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise YamlError(f"{key.value} is given twice (line {key.start_mark.line + 1})")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _TextOnly(_Bounded):
    """The same, but every plain value is the text that stands there: 007 and 2024-05-01 are names."""

    yaml_implicit_resolvers = {}


# YAML 1.1 wants a dot and a signed exponent in every float, so PyYAML reads 1e-3 as text.
_Bounded.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))


def _num_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """Values in `node` with all aliases written out; YamlError where one contains itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    found = known.get(id(node))
    if found is None:
        known[id(node)] = -1  # being counted
        children = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = found = 1 + sum(_num_nodes(child, known) for child in children)
    elif found < 0:
        raise YamlError("a value contains itself")
    return found


def parse_yaml(text: str, *, text_only: bool = False) -> Any:
    """The value of one YAML document; with `text_only` every plain value as text. YamlError where it is none."""
    try:
        return (_TextOnly if text_only else _Bounded)(text).get_single_data()
    except YamlError:
        raise
    # Values such as `!!int x` or month 13 make PyYAML raise errors that are no YAMLError.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise YamlError(_one_line(error)) from None


def read_yaml(path: Path) -> Any:
    """The value of a YAML file. YamlError where it is none, OSError where it cannot be read."""
    try:
        text = read_document(path, max_bytes=MAX_BYTES).decode()
        return parse_yaml(text)
    except (DocumentError, UnicodeDecodeError) as error:
        raise YamlError(_one_line(error)) from None


def _one_line(error: Exception) -> str:
    return " ".join(printable(" ".join(str(error).split())).split())
