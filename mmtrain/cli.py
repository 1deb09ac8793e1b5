"""`mmtrain VERB ...`: one table from verb to door; a door is imported when its verb is said."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from mmtrain.io.arguments import shown
from mmtrain.io.command import ExitCode, refuse, run_command
from mmtrain.io.console import print_text


class Door(NamedTuple):
    """A module with `main(argv: Sequence[str] | None = None) -> int`, and what its verb does."""

    module: str
    promise: str


DOORS = {
    "pretrain": Door("mmtrain.pretrain", "train a model with the joint loss on image-caption shards"),
    "finetune": Door("mmtrain.finetune", "train a pretrained model for captioning, questions or retrieval"),
    "plan": Door("mmtrain.plan", "check a layout and say what each rank would hold and do, without starting anything"),
    "preflight": Door("mmtrain.preflight", "ask before a cluster job trains: is the run as asked, is every node fit"),
    "evaluate": Door("mmtrain.evaluate", "score a run on held-out pairs"),
    "compare": Door("mmtrain.compare", "put the held-out scores of runs side by side"),
    "generate": Door("mmtrain.generate", "write captions of images with a run or an export"),
    "search": Door("mmtrain.search", "find pictures by words with a run or an export"),
    "reshard": Door("mmtrain.reshard", "say what a checkpoint holds, verify it, or write it anew as one file"),
    "export": Door("mmtrain.export", "write a checkpoint as a Hugging Face folder"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Walk through the door that the first word names and return its exit code; without a word, list the verbs."""
    words = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _run(words), "mmtrain")


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print_text(_verbs())
        return ExitCode.DONE
    if words[0] not in DOORS:
        return refuse("mmtrain", _unknown(words[0]))
    return importlib.import_module(DOORS[words[0]].module).main(words[1:])


def _verbs() -> str:
    rows = [f"  {verb:<10} {door.promise}" for verb, door in DOORS.items()]
    return "\n".join(["mmtrain VERB ...", "", *rows, "", "`mmtrain VERB --help` says more about one."])


def _unknown(verb: str) -> str:
    nearest = difflib.get_close_matches(verb, DOORS, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"the verbs are {', '.join(DOORS)}"
    return f"{shown(verb)} is not a verb; {hint}"


if __name__ == "__main__":
    sys.exit(main())
