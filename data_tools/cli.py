"""`mmdata COMMAND ...`: makes and checks what `mmtrain` trains on."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NamedTuple, NoReturn

from mmtrain.data.faults import DataError

WRONG_INPUT = 2  # exit code: the sentence on standard error says what to change


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
    "index": Command("index shards of other tools", "commands"),
    "verify": Command("find damage in shards", "commands"),
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Leave with the exit code of wrong input."""
        self.exit(WRONG_INPUT, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 wrong input; 1 and 3 as the command says."""
    words = sys.argv[1:] if argv is None else list(argv)
    arguments = _parser(words[0] if words else "").parse_args(words)
    try:
        return getattr(COMMANDS[arguments.command].load(), arguments.command)(arguments)
    except DataError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename or 'a file'} cannot be used: {error.strerror or error}"
    except KeyboardInterrupt:
        print("mmdata: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(f"mmdata {arguments.command}: {reason}", file=sys.stderr)
    return WRONG_INPUT


def _parser(chosen: str) -> Parser:
    """The parser of the command line; only the chosen command's own arguments are in it."""
    parser = Parser(prog="mmdata", description=__doc__)
    words = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for word, command in COMMANDS.items():
        own = words.add_parser(word, help=command.promise, description=command.promise)
        if word == chosen:
            getattr(command.load(), f"{word}_arguments")(own)
    return parser
