"""Generate: images and an export (or a run) in, captions or answers out.

mmtrain generate runs/demo/export photo.jpg
mmtrain generate runs/answers photos/ --ask "what color is the star?"
mmtrain generate runs/demo "photos/*.jpg" --jsonl captions.jsonl --beams 4
mmtrain generate runs/demo photos/ --sample --temperature 0.8
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from mmtrain.config.section import MAX_BEAMS, MAX_LENGTH_PENALTY, MAX_TEMPERATURE, MIN_TEMPERATURE
from mmtrain.io.arguments import Parser, local_path, natural, positive_fraction, whole, whole_within, within, words
from mmtrain.io.command import ExitCode, run_command
from mmtrain.io.console import print_error, print_report, print_result, progress_bar
from mmtrain.io.errors import InputError
from mmtrain.io.results import ResultFile
from mmtrain.parallel.launch import hush_expected_warnings

if TYPE_CHECKING:
    from mmtrain.deploy.captions import HowToWrite, Write, Written

BEAMS = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 where images were passed over; 2 with one clear message where nothing can be written."""
    return run_command(lambda: generate(_parser().parse_args(argv)), "mmtrain")


def _parser() -> Parser:
    parser = Parser(
        prog="mmtrain generate", description="Write captions of images, or answers to a question about them."
    )
    parser.add_argument("model", type=local_path, help="an export, or a run folder (its newest checkpoint is taken)")
    parser.add_argument("images", nargs="+", help="files, folders or patterns; each file has a line, in this order")
    parser.add_argument("--ask", type=words, metavar="QUESTION", help="write the answer to this in place of a caption")
    parser.add_argument(
        "--jsonl",
        type=local_path,
        metavar="FILE",
        help="also write one JSON object a line, as it comes: image, and caption, answer or error",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --jsonl where there is one")
    parser.add_argument("--batch-size", type=whole, default=16, help="images at once (default: 16)")
    parser.add_argument(
        "--beams", type=whole_within(1, MAX_BEAMS), help=f"beams of the search; 1 is greedy (default: {BEAMS})"
    )
    parser.add_argument("--max-length", type=whole, help="most tokens of a text (default: what the model has)")
    parser.add_argument(
        "--length-penalty",
        type=within(-MAX_LENGTH_PENALTY, MAX_LENGTH_PENALTY),
        help="of the search: above 0 favours longer texts (default: 1)",
    )
    parser.add_argument("--sample", action="store_true", help="draw words by chance instead of searching")
    parser.add_argument(
        "--temperature", type=within(MIN_TEMPERATURE, MAX_TEMPERATURE), help="of sampling: lower is safer (default: 1)"
    )
    parser.add_argument(
        "--top-p", type=positive_fraction, help="of sampling: share of the likeliest words (default: 1)"
    )
    parser.add_argument("--seed", type=natural, default=0, help="of sampling (default: 0)")
    return parser


def _check_flags(flags: argparse.Namespace) -> None:
    """InputError where flags contradict each other: none is ignored in silence."""
    for flag, value in (("--temperature", flags.temperature), ("--top-p", flags.top_p)):
        if value is not None and not flags.sample:
            raise InputError(f"{flag} is of sampling; add --sample, or leave {flag} out")
    for flag, value in (("--beams", flags.beams), ("--length-penalty", flags.length_penalty)):
        if value is not None and flags.sample:
            raise InputError(f"{flag} is of the search, and --sample draws by chance; leave one of them out")
    if flags.beams == 1 and flags.length_penalty is not None:
        raise InputError(
            "--length-penalty weighs beams against each other; --beams 1 has none, so leave one of them out"
        )
    if flags.ask is None and flags.max_length == 1:
        raise InputError("--max-length is 1, which [CLS] fills; wanted at least 2")


def generate(flags: argparse.Namespace) -> int:
    """Write about every image; what cannot be read is named on stderr and passed over."""
    _check_flags(flags)
    kind = "caption" if flags.ask is None else "answer"
    file = ResultFile(flags.jsonl, flag="--jsonl", overwrite=flags.overwrite) if flags.jsonl else None
    hush_expected_warnings()
    from mmtrain.deploy.captions import seed_draws, write_about
    from mmtrain.deploy.pictures import find_images

    paths = [path for name in flags.images for path in find_images(name)]
    write = _captioner(flags) if flags.ask is None else _answerer(flags)
    seed_draws(flags.seed)
    num_left_out = 0
    with file or nullcontext(), progress_bar(f"{kind}s", len(paths)) as advance:
        for one in write_about(paths, write, batch_size=flags.batch_size):
            if file is not None:
                file.write(_row(one, kind))
            _show(one, is_result=file is None)
            num_left_out += one.text is None
            advance()
    if num_left_out:
        print_error("mmtrain", f"{num_left_out} of {len(paths)} images could not be read")
    return ExitCode.FAILED if num_left_out else ExitCode.DONE


def _captioner(flags: argparse.Namespace) -> "Write":
    from mmtrain.deploy.captions import captions_of, prompt_length
    from mmtrain.deploy.models import load_model
    from mmtrain.hf import VLBertForImageCaptioning

    model = load_model(flags.model, VLBertForImageCaptioning)
    length = _length(flags, most=model.config.max_text_length, begun=prompt_length(model))
    return partial(captions_of, model, _how(flags, max_length=length))


def _answerer(flags: argparse.Namespace) -> "Write":
    from mmtrain.deploy.captions import answers_of
    from mmtrain.deploy.models import load_model
    from mmtrain.hf import VLBertForVisualQuestionAnswering

    model = load_model(flags.model, VLBertForVisualQuestionAnswering)
    if model.config.answers is not None:
        _refuse_flags_of_writing(flags)
    length = _length(flags, most=model.config.answer_tokens, begun=0)
    return partial(answers_of, model, flags.ask, _how(flags, max_new_tokens=length))


def _length(flags: argparse.Namespace, *, most: int, begun: int) -> int:
    """The most tokens of a text; InputError where the model has no room for as many, or they are fewer than `begun`."""
    if flags.max_length is None:
        return most
    if flags.max_length > most:
        raise InputError(
            f"--max-length is {flags.max_length}, but the model has room for {most} tokens; give at most {most}"
        )
    if flags.max_length <= begun:
        raise InputError(f"--max-length is {flags.max_length}, but the model begins with {begun} tokens; give more")
    return flags.max_length


def _refuse_flags_of_writing(flags: argparse.Namespace) -> None:
    given = {
        "--beams": flags.beams,
        "--length-penalty": flags.length_penalty,
        "--sample": flags.sample or None,
        "--max-length": flags.max_length,
    }
    for flag, value in given.items():
        if value is not None:
            raise InputError(f"{flag} is of models that write answers; this one chooses among a list, so leave it out")


def _how(flags: argparse.Namespace, **length: int) -> "HowToWrite":
    from mmtrain.deploy.captions import HowToWrite

    if flags.sample:
        return HowToWrite(1, **length, do_sample=True, temperature=flags.temperature or 1.0, top_p=flags.top_p or 1.0)
    penalty = 1.0 if flags.length_penalty is None else flags.length_penalty
    return HowToWrite(flags.beams or BEAMS, **length, length_penalty=penalty)


def _show(one: "Written", *, is_result: bool) -> None:
    """One line an image: texts to stdout, faults to stderr. Where a file has the results, stdout may go away."""
    if one.text is None:
        print_error("mmtrain", f"{one.name} passed over: {one.fault}")
    elif is_result:
        print_result(one.name, one.text)
    else:
        print_report(one.name, one.text)


def _row(one: "Written", kind: str) -> dict[str, str]:
    return {"image": one.name} | ({kind: one.text} if one.text is not None else {"error": one.fault or ""})


if __name__ == "__main__":
    sys.exit(main())
