"""Generate: images and an export (or a run) in, captions or answers out.

mmtrain generate runs/demo/export photo.jpg
mmtrain generate runs/answers photos/ --ask "what color is the star?"
mmtrain generate runs/demo "photos/*.jpg" --jsonl captions.jsonl --beams 4
mmtrain generate runs/demo photos/ --sample --temperature 0.8
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.config.load import ConfigError
from mmtrain.data.faults import DataError
from mmtrain.parallel.launch import hush_expected_warnings, or_refused

if TYPE_CHECKING:
    from mmtrain.deploy.captions import HowToWrite, Write, Written

SOME_LEFT_OUT = 1  # exit code where an image could not be read, and the others have texts


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 where images were passed over; 2 with one clear message where nothing can be written."""
    words = _parser().parse_args(argv)
    hush_expected_warnings()
    return or_refused(partial(generate, words), (ConfigError, DataError, CheckpointError, FileNotFoundError))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmtrain generate", description="Write captions of images, or answers to a question about them."
    )
    parser.add_argument("model", type=Path, help="an export, or a run folder (its newest checkpoint is taken)")
    parser.add_argument("images", nargs="+", help="files, folders or patterns")
    parser.add_argument(
        "--ask", type=_question, metavar="QUESTION", help="write the answer to this in place of a caption"
    )
    parser.add_argument(
        "--jsonl", type=Path, help="also write one JSON object a line: image, and caption, answer or error"
    )
    parser.add_argument("--batch-size", type=_count, default=16, help="images at once (default: 16)")
    parser.add_argument("--beams", type=_count, default=4, help="beams of the search; 1 is greedy (default: 4)")
    parser.add_argument("--max-length", type=_count, help="most tokens of a text (default: what the model has)")
    parser.add_argument("--length-penalty", type=float, default=1.0, help="above 0 favours longer texts (default: 1)")
    parser.add_argument("--sample", action="store_true", help="draw words by chance instead of searching")
    parser.add_argument("--temperature", type=float, default=1.0, help="of sampling: lower is safer (default: 1)")
    parser.add_argument(
        "--top-p", type=float, default=1.0, help="of sampling: share of the likeliest words (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of sampling (default: 0)")
    return parser


def _question(word: str) -> str:
    if not word.strip():
        raise argparse.ArgumentTypeError("an empty question cannot be answered")
    return word.strip()


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number of at least 1")
    return int(word)


def generate(words: argparse.Namespace) -> int:
    """Write about every image; what cannot be read is named on stderr and passed over."""
    from mmtrain.deploy.captions import seed_draws, write_about
    from mmtrain.deploy.pictures import find_images

    paths = [path for word in words.images for path in find_images(word)]
    kind, write = ("caption", _captioner(words)) if words.ask is None else ("answer", _answerer(words))
    seed_draws(words.seed)
    found: list[Written] = []
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"{kind}s", total=len(paths))
        for one in write_about(paths, write, batch_size=words.batch_size):
            found.append(one)
            _say(one, progress)
            progress.advance(bar)
    if words.jsonl is not None:
        words.jsonl.write_text("".join(json.dumps(_row(one, kind)) + "\n" for one in found))
    left_out = sum(one.text is None for one in found)
    if left_out:
        print(f"mmtrain: {left_out} of {len(found)} images could not be read", file=sys.stderr)
    return SOME_LEFT_OUT if left_out else 0


def _captioner(words: argparse.Namespace) -> "Write":
    from mmtrain.deploy.captions import captions_of
    from mmtrain.deploy.pictures import open_twin
    from mmtrain.hf import VLBertForImageCaptioning

    model = open_twin(words.model, VLBertForImageCaptioning)
    most = model.config.max_text_length
    return partial(captions_of, model, _how(words, max_length=min(words.max_length or most, most)))


def _answerer(words: argparse.Namespace) -> "Write":
    from mmtrain.deploy.captions import answers_of
    from mmtrain.deploy.pictures import open_twin
    from mmtrain.hf import VLBertForVisualQuestionAnswering

    model = open_twin(words.model, VLBertForVisualQuestionAnswering)
    most = model.config.answer_tokens
    return partial(answers_of, model, words.ask, _how(words, max_new_tokens=min(words.max_length or most, most)))


def _how(words: argparse.Namespace, **length: int) -> "HowToWrite":
    from mmtrain.deploy.captions import HowToWrite

    if words.sample:
        return HowToWrite(1, **length, do_sample=True, temperature=words.temperature, top_p=words.top_p)
    return HowToWrite(words.beams, **length, length_penalty=words.length_penalty)


def _say(one: "Written", progress: Progress) -> None:
    """One line an image: texts to stdout, faults to stderr. The bar is drawn below both."""
    if one.text is None:
        progress.console.print(f"mmtrain: {one.name} passed over: {one.fault}", soft_wrap=True, markup=False)
        return
    print(f"{one.name}\t{one.text}", flush=True)


def _row(one: "Written", kind: str) -> dict[str, str]:
    return {"image": one.name} | ({kind: one.text} if one.text is not None else {"error": one.fault or ""})


if __name__ == "__main__":
    sys.exit(main())
