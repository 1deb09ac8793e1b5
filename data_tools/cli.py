"""`mmdata COMMAND ...`: makes and checks what `mmtrain` trains on."""

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from data_tools.positionals import PositionalsParser
from mmtrain.io.command import run_command


class Command(NamedTuple):
    """What a word of the command line does: functions WORD and WORD_arguments of a module."""

    promise: str
    module: str  # imported when the word is used: worker processes import this file too, and need nothing of it

    def load(self) -> ModuleType:
        """The module."""
        return import_module(f"data_tools.{self.module}")


COMMANDS = {
    "build": Command("make shards of your images and captions", "build_command"),
    "merge": Command("pack what the parts of a build prepared", "build_command"),
    "synth": Command("draw a compositional set of scenes", "commands"),
    "tokenizer": Command("train a tokenizer on captions and questions", "commands"),
    "answers": Command("list the answers that a model is to choose from", "commands"),
    "inspect": Command("show what shards hold", "commands"),
    "index": Command("index shards of other tools; ends with 1 where something in them cannot be used", "commands"),
    "verify": Command("find damage in shards; ends with 0 where there is none, with 1 where some is named", "commands"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (`ExitCode`); `build --strict` ends with 3, as it says."""
    words = sys.argv[1:] if argv is None else list(argv)
    chosen = words[0] if words else ""
    program = f"mmdata {chosen}" if chosen in COMMANDS else "mmdata"
    return run_command(
        partial(_run, words, chosen), program, interrupted="interrupted; the same command goes on from here"
    )


def _run(words: list[str], chosen: str) -> int:
    arguments = _parser(chosen).parse_args(words)
    return getattr(COMMANDS[arguments.command].load(), arguments.command)(arguments)


def _parser(chosen: str) -> PositionalsParser:
    """The parser of the command line; only the chosen command's own arguments are in it."""
    parser = PositionalsParser(prog="mmdata", description=__doc__)
    words = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for word, command in COMMANDS.items():
        own = words.add_parser(word, help=command.promise, description=command.promise)
        if word == chosen:
            getattr(command.load(), f"{word}_arguments")(own)
    return parser
