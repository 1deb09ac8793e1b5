"""Evaluate: a run folder in, held-out scores out.

mmtrain evaluate runs/demo key=value ...
mmtrain evaluate runs/demo --captions                            captions of held-out synthetic scenes, judged
torchrun --nproc-per-node 4 -m mmtrain.evaluate runs/demo parallel.tp=2
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mmtrain.config.check import check, load_checked
from mmtrain.config.load import ConfigError
from mmtrain.config.schema import RunConfig
from mmtrain.config.trust import show
from mmtrain.data.faults import DataError
from mmtrain.io.arguments import Parser, local_path
from mmtrain.io.command import run_command
from mmtrain.io.errors import InputError
from mmtrain.monitor.log import start_logging
from mmtrain.parallel.launch import (
    Launch,
    hush_expected_warnings,
    in_one_sentence,
    on_this_rank,
    read_launch,
)

LOG = logging.getLogger("mmtrain.evaluate")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 with one clear message when the run cannot be scored as asked."""
    return run_command(partial(_evaluate, argv), "mmtrain", needs_stdout=False)


def _evaluate(argv: Sequence[str] | None) -> int:
    words = _parser().parse_intermixed_args(argv)
    launch = read_launch()
    hush_expected_warnings()
    start_logging(rank=launch.rank)
    work = evaluate_captions if words.captions else evaluate
    return in_one_sentence(partial(work, words.run_dir, words.overrides, launch), launch, (InputError,))


def _parser() -> Parser:
    parser = Parser(prog="mmtrain evaluate", description="Score a run on its held-out pairs.")
    parser.add_argument("run_dir", type=local_path, help="a run folder with a checkpoint")
    parser.add_argument("--captions", action="store_true", help="write captions, and say what share of them is right")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example parallel.tp=2")
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)  # deepspeed adds it
    return parser


def evaluate(run_dir: Path, overrides: Sequence[str], launch: Launch) -> int:
    """Load the newest checkpoint on whatever layout was launched, score it, log and print the scores."""
    plan = _plan_of(run_dir, overrides, launch)
    from mmtrain.checkpoint.load import find_or_refuse, load_tensors
    from mmtrain.data.stream import open_tokenizer
    from mmtrain.engine.build import build_model, build_passes, join, open_heldout
    from mmtrain.monitor.folder import RunFolder
    from mmtrain.parallel.groups import stop
    from mmtrain.tasks.choice import build_scorer

    tokenizer = open_tokenizer(plan.data)
    check(plan, launch.world_size, tokenizer.num_pieces)
    heldout = open_heldout(plan, launch, tokenizer)
    place = join(plan, launch)
    folder, manifest = find_or_refuse(run_dir / "checkpoints")
    manifest.refuse_other_tokenizer(tokenizer.sha256)
    model, slices = build_model(plan, place, tokenizer.num_pieces)
    load_tensors(folder, {slices[name]: param.data for name, param in model.named_parameters()})
    passes = build_passes(plan, place, model.to(place.device, place.dtype).eval(), model)
    with on_this_rank(DataError, lambda: "while it scored the held-out pairs"):
        report = build_scorer(plan, place, heldout).run(passes)
    run = RunFolder(run_dir, writes=launch.rank == 0)
    run.record_scores(manifest.step, report)
    run.show_results(report)
    run.close()
    stop()
    return 0


def evaluate_captions(run_dir: Path, overrides: Sequence[str], launch: Launch) -> int:
    """Caption held-out scenes with the newest checkpoint's twin, in one process; log and print what share is right."""
    plan = _plan_of(run_dir, overrides, launch)
    if launch.world_size > 1:
        raise ConfigError([f"--captions takes one process, but {launch.world_size} ranks were launched"])
    from mmtrain.checkpoint.load import find_or_refuse
    from mmtrain.data.stream import open_tokenizer
    from mmtrain.deploy.captions import heldout_scores
    from mmtrain.deploy.models import load_model
    from mmtrain.engine.build import open_heldout
    from mmtrain.hf import VLBertForImageCaptioning
    from mmtrain.monitor.folder import RunFolder
    from mmtrain.records import EvalReport

    step = find_or_refuse(run_dir / "checkpoints").manifest.step
    heldout = open_heldout(plan, launch, open_tokenizer(plan.data))
    scores = heldout_scores(
        load_model(run_dir, VLBertForImageCaptioning), heldout, batch_size=plan.train.micro_batch_size
    )
    run = RunFolder(run_dir, writes=True)
    report = EvalReport(scores={"captions": scores}, retrieved=())
    run.record_scores(step, report)
    run.show_results(report)
    run.close()
    return 0


def _plan_of(run_dir: Path, overrides: Sequence[str], launch: Launch) -> RunConfig:
    """The run's config, with its own tokenizer; ConfigError where nothing is held out."""
    from mmtrain.monitor.folder import CONFIG, TOKENIZER, refuse_linked_outputs

    words = [f"data.tokenizer={run_dir / TOKENIZER}", f"run_dir={run_dir}", *overrides]
    # Whose run it is cannot be told, so its config is a stranger's; what trains is not opened.
    plan = load_checked(run_dir / CONFIG, words, launch.world_size, trusted=False, opened=("data.heldout",))
    refuse_linked_outputs(run_dir)
    if launch.rank == 0 and not any(word.startswith("data.heldout=") for word in overrides):
        LOG.info("data.heldout, as %s says: %s", run_dir / CONFIG, ", ".join(map(show, plan.data.heldout)))
    if not plan.data.heldout:
        raise ConfigError([f"data.heldout is empty in {run_dir / CONFIG}; name held-out shards: data.heldout=FOLDER"])
    return plan


if __name__ == "__main__":
    sys.exit(main())
