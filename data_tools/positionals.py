"""Positional arguments behind a flag that takes several values: `build in.json --split train OUT` still has its OUT.

argparse gives all words behind such a flag to it and then says that OUT is missing. Where positionals are missing, the
last values of the last flag that has more than one are them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtrain.io.arguments import Parser

SEVERAL = ("+", "*")


class PositionalsParser(Parser):
    """A parser, and parent of parsers, in which no flag keeps what positionals miss."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What argparse makes of the words."""
        return super().parse_known_args(return_positionals(self, args or ()), namespace)


def return_positionals(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The words, flags with their values first and positionals last, so that argparse sees all of these at once."""
    positionals = [action for action in parser._actions if not action.option_strings]
    if {"-h", "--help"} & set(words) or any(action.nargs == argparse.PARSER for action in positionals):
        return list(words)
    end = words.index("--") if "--" in words else len(words)
    found, flags, greedy = list[str](), list[str](), list[range]()
    at = 0
    while at < end:
        action, has_value = _option(parser, words[at])
        at += 1
        if action is None:
            found.append(words[at - 1])
            continue
        flags.append(words[at - 1])
        first = len(flags)
        most = 0 if has_value else {None: 1, "?": 1, "+": end, "*": end}.get(action.nargs, action.nargs)
        while at < end and len(flags) - first < most and not _is_flag(words[at]):
            flags.append(words[at])
            at += 1
        if action.nargs in SEVERAL and not has_value:
            greedy.append(range(first, len(flags)))
    found += words[end + 1 :]
    missing = sum(action.nargs in (None, "+") for action in positionals) - len(found)
    for values in reversed(greedy):
        # The last positional is a folder to be made: a file there belongs to the flag.
        if 0 < missing < len(values) and not Path(flags[values[-1]]).is_file():
            own = slice(values.stop - missing, values.stop)
            found += flags[own]
            del flags[own]
            break
    return [*flags, "--", *found] if found else flags


def _option(parser: argparse.ArgumentParser, word: str) -> tuple[argparse.Action | None, bool]:
    """The action of a flag, whole or abbreviated, and whether its value stands in the same word; None for a value."""
    if not _is_flag(word):
        return None, False
    name, equals, _ = word.partition("=")
    known = parser._option_string_actions
    matches = [known[name]] if name in known else [action for flag, action in known.items() if flag.startswith(name)]
    return (matches[0] if matches else argparse.Action([name], "", nargs=0)), bool(equals)


def _is_flag(word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not word[1:].replace(".", "", 1).isdecimal()
