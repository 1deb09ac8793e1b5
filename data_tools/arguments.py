"""Arguments that most commands of `mmdata` have, and the way they report."""

import argparse

from data_tools.parallel import default_processes
from mmtrain.io.arguments import whole
from mmtrain.io.console import print_report as say

__all__ = ["add_processes", "say"]


def add_processes(parser: argparse.ArgumentParser) -> None:
    """The argument that most commands have."""
    parser.add_argument("--processes", type=whole, default=default_processes(), help="(%(default)s)")
