"""Kinds of command line arguments, and the way commands speak."""

import argparse
import re
from collections.abc import Callable

from rich.console import Console

from data_tools.parallel import default_processes

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def whole(text: str) -> int:
    """A whole number of at least 1."""
    return _at_least(1, text)


def natural(text: str) -> int:
    """A whole number of at least 0."""
    return _at_least(0, text)


def at_least(least: float) -> Callable[[str], float]:
    """A reader of numbers that are not below `least`."""

    def number(text: str) -> float:
        try:
            if float(text) >= least:
                return float(text)
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least {least:g}")

    return number


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    value = at_least(0.0)(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is above 1")
    return value


def size_in_bytes(text: str) -> int:
    """A number of bytes, as in 1000000, 500M or 1.5G."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; wanted as in 500M or 1G")
    return size


def add_processes(parser: argparse.ArgumentParser) -> None:
    """The argument that most commands have."""
    parser.add_argument("--processes", type=whole, default=default_processes(), help="(%(default)s)")


def say(sentence: str) -> None:
    """One line on standard output; signs that could steer a terminal become visible."""
    plain = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in sentence)
    Console(soft_wrap=True, highlight=False, markup=False).print(plain.encode("utf-8", "replace").decode())


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)
