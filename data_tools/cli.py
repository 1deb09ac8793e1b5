"""`mmdata COMMAND ...`: makes and checks what `mmtrain` trains on."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from data_tools import build_command, commands
from mmtrain.data.index import DataError

WRONG_INPUT = 2  # exit code: the sentence on standard error says what to change


class Command(NamedTuple):
    """What a word of the command line does."""

    promise: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS = {
    "build": Command("make shards of your images and captions", build_command.build_arguments, build_command.build),
    "merge": Command("pack what the parts of a build prepared", build_command.merge_arguments, build_command.merge),
    "synth": Command("draw a compositional set of scenes", commands.synth_arguments, commands.synth),
    "tokenizer": Command("train a tokenizer on captions", commands.tokenizer_arguments, commands.tokenizer),
    "inspect": Command("show what shards hold", commands.inspect_arguments, commands.inspect),
    "index": Command("index shards of other tools", commands.index_arguments, commands.index),
    "verify": Command("find damage in shards", commands.verify_arguments, commands.verify),
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Leave with the exit code of wrong input."""
        self.exit(WRONG_INPUT, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 wrong input; 1 and 3 as the command says."""
    arguments = _parser().parse_args(argv)
    try:
        return COMMANDS[arguments.command].run(arguments)
    except DataError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename or 'a file'} cannot be used: {error.strerror or error}"
    except KeyboardInterrupt:
        print("mmdata: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(f"mmdata {arguments.command}: {reason}", file=sys.stderr)
    return WRONG_INPUT


def _parser() -> Parser:
    parser = Parser(prog="mmdata", description=__doc__)
    words = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for word, command in COMMANDS.items():
        command.arguments(words.add_parser(word, help=command.promise, description=command.promise))
    return parser
