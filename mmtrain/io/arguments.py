"""Types of command line arguments, shared by `mmtrain` and `mmdata`: each refuses in one sentence. No torch."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from mmtrain.io.command import ExitCode
from mmtrain.io.console import print_error
from mmtrain.io.paths import expand_user, local_fault
from mmtrain.io.text import printable, redact
from mmtrain.io.utf8_paths import is_utf8

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MAX_COUNT = 2**63 - 1  # of what is counted, and of a seed


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one sentence, and where to read more."""

    def error(self, message: str) -> NoReturn:
        """Leave with the exit code of what cannot be used."""
        print_error(self.prog, f"{message}; see `{self.prog} --help`")
        self.exit(ExitCode.REFUSED)


def whole(text: str) -> int:
    """A whole number of at least 1."""
    return whole_within(1)(text)


def natural(text: str) -> int:
    """A whole number of at least 0; a seed."""
    return whole_within(0)(text)


def whole_within(least: int, most: int = MAX_COUNT) -> Callable[[str], int]:
    """A reader of whole numbers from `least` to `most`."""

    def number(text: str) -> int:
        digits = text.strip().lstrip("0") or "0"
        if (
            not (text.isascii() and text.strip().isdecimal())
            or len(digits) > len(str(MAX_COUNT))
            or int(digits) < least
        ):
            raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number of at least {least}")
        if int(digits) > most:
            raise argparse.ArgumentTypeError(f"{shown(text)} is above {most}")
        return int(digits)

    return number


def finite(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a finite number")
    return value


def at_least(least: float) -> Callable[[str], float]:
    """A reader of finite numbers that are not below `least`."""

    def number(text: str) -> float:
        value = finite(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{shown(text)} is not a number of at least {least:g}")
        return value

    return number


def within(least: float, most: float) -> Callable[[str], float]:
    """A reader of numbers from `least` to `most`."""

    def number(text: str) -> float:
        value = finite(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{shown(text)} is not a number from {least:g} to {most:g}")
        return value

    return number


def positive(text: str) -> float:
    """A finite number above 0."""
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not above 0")
    return value


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    value = at_least(0.0)(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is above 1")
    return value


def positive_fraction(text: str) -> float:
    """A number above 0 and at most 1."""
    if fraction(text) == 0:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not above 0")
    return fraction(text)


def size_in_bytes(text: str) -> int:
    """A number of bytes, as in 1000000, 500M or 1.5G."""
    found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?)([KMGT]?)i?B?", text.strip(), re.IGNORECASE | re.ASCII)
    size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no size; wanted as in 500M or 1G")
    return size


def words(text: str) -> str:
    """Text that is not empty, without blanks around it."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; wanted some words")
    if not is_utf8(text):
        raise argparse.ArgumentTypeError(f"'{printable(text)}' is not UTF-8 text")
    return text.strip()


def local_path(text: str) -> Path:
    """The path of a local file or folder, "~" at its beginning expanded: shells leave it alone in --out=~/x.

    All else is taken as it is: variables are for the shell to expand.
    """
    if not text:
        raise argparse.ArgumentTypeError("it is empty; wanted a path")
    path = expand_user(text)
    if fault := local_fault(path):
        raise argparse.ArgumentTypeError(f"{shown(redact(text))}: {fault}")
    return Path(path)


def shown(text: str) -> str:
    """What was given, in quotes and no longer than a line."""
    return repr(text if len(text) <= 40 else f"{text[:30]}...")
