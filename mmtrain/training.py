"""Training as every door that trains does it: words on the command line in, a run folder out.

In a folder that holds a checkpoint the run goes on from it.
"""

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mmtrain.config.check import check, load_checked
from mmtrain.config.layout import layout_remarks
from mmtrain.config.load import refuse_unknown_names
from mmtrain.config.schema import RunConfig
from mmtrain.data.faults import DataError
from mmtrain.io.arguments import local_path
from mmtrain.io.command import run_command
from mmtrain.io.errors import InputError
from mmtrain.io.text import printable, redact
from mmtrain.monitor.log import start_logging
from mmtrain.parallel.launch import (
    Launch,
    hush_expected_warnings,
    in_one_sentence,
    on_this_rank,
    read_launch,
)
from mmtrain.parallel.signals import Signals

if TYPE_CHECKING:
    from mmtrain.checkpoint.keeper import Keeper
    from mmtrain.data.heldout import HeldOut
    from mmtrain.data.stream import Stream
    from mmtrain.engine.build import Place
    from mmtrain.monitor.oversight import Oversight

LOG = logging.getLogger("mmtrain.training")
REFUSALS = (InputError,)


def add_words(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """What every door that trains understands."""
    parser.add_argument("--config", type=local_path, help="a YAML file; what it leaves out keeps its default")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example train.num_steps=100")
    parser.add_argument(
        "--override-resume",
        action="append",
        default=[],
        metavar="KEY",
        help="a knob that may differ from what the run in run_dir was started with; may be given more than once",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)  # deepspeed adds it
    return parser


def allowed_changes(words: argparse.Namespace) -> list[str]:
    """The knobs named after --override-resume."""
    return [name for several in words.override_resume for name in several.split(",")]


def begin(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    work: Callable[[argparse.Namespace, Launch, Signals], int],
) -> int:
    """The exit code of `work` with what `parser` reads off the command line; of a refusal only the message is shown."""
    return run_command(lambda: _begin(parser.parse_intermixed_args(argv), work), "mmtrain", needs_stdout=False)


def _begin(words: argparse.Namespace, work: Callable[[argparse.Namespace, Launch, Signals], int]) -> int:
    launch = read_launch()
    hush_expected_warnings()
    start_logging(rank=launch.rank)
    signals = Signals(speaks=launch.rank == 0)
    try:
        return in_one_sentence(partial(work, words, launch, signals), launch, REFUSALS, signals)
    finally:
        signals.defer()


def train_as_told(
    config: Path | None,
    overrides: Sequence[str],
    allowed: Sequence[str],
    launch: Launch,
    signals: Signals,
    *,
    under: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Check all that can be checked alone, then join the other ranks and train; `under` lies below the config."""
    plan = load_checked(config, overrides, launch.world_size, under)
    refuse_unknown_names(allowed, "--override-resume")
    signals.listen_for(plan.survival.signals)
    if launch.rank == 0:
        _show_inherited(plan, under)
    # Only now the imports that take seconds: a wrong knob is answered at once.
    from mmtrain.checkpoint.changes import Changes
    from mmtrain.checkpoint.keeper import Keeper
    from mmtrain.checkpoint.resume import describe, refuse_other_run
    from mmtrain.data.stream import KNOBS, open_tokenizer
    from mmtrain.engine.beginnings import refuse_unfit_source
    from mmtrain.engine.build import join, open_heldout, open_stream
    from mmtrain.monitor.claim import open_status
    from mmtrain.monitor.folder import CONFIG, refuse_linked_outputs
    from mmtrain.monitor.health import Health
    from mmtrain.monitor.oversight import Oversight
    from mmtrain.monitor.pace import Pace
    from mmtrain.monitor.watchdog import Watchdog
    from mmtrain.parallel.groups import stop

    tokenizer = open_tokenizer(plan.data)
    check(plan, launch.world_size, tokenizer.num_pieces)
    refuse_unfit_source(plan, tokenizer)
    for remark in layout_remarks(plan, launch.world_size) if launch.rank == 0 else ():
        LOG.warning("%s", remark)
    stream, heldout = open_stream(plan, launch, tokenizer), open_heldout(plan, launch, tokenizer)
    here, changes = describe(plan, launch.world_size, stream, tokenizer), Changes(KNOBS, allowed)
    refuse_linked_outputs(plan.run_dir)
    refuse_other_run(plan.run_dir, plan.run_dir / CONFIG, here, changes)
    place = join(plan, launch)
    signals.defer()  # all ranks are here: they agree on when to save and end
    status, claim = open_status(plan.run_dir, launch, plan.train.num_steps)
    with status.telling(REFUSALS):
        keeper = Keeper(plan.run_dir, here, plan.checkpoint, changes)
        oversight = Oversight(
            status,
            Watchdog(plan.survival, status, launch.rank).start(),
            Health(plan.survival, speaks=launch.rank == 0),
            Pace(plan.survival, place.device, node=launch.node, rank=launch.rank),
        )
        run(plan, stream, heldout, keeper, place=place, oversight=oversight, signals=signals)
        oversight.watchdog.stop()
    if claim:
        claim.release()
    stop()
    return 0


def _show_inherited(plan: RunConfig, under: Mapping[str, Any]) -> None:
    """Name the places of data that the user did not give: they come from what the run begins with."""
    theirs, own = under.get("data", {}), plan.data.model_dump(mode="json")
    for name in ("train", "heldout"):
        if theirs.get(name) and theirs[name] == own[name]:
            LOG.info("data.%s, taken over from %s: %s", name, plan.model.init_from, redact(printable(str(own[name]))))


def run(
    plan: RunConfig,
    stream: "Stream",
    heldout: "HeldOut | None",
    keeper: "Keeper",
    *,
    place: "Place",
    oversight: "Oversight",
    signals: Signals,
) -> None:
    """Train, save, score; the first rank writes the run folder and prints what is in it."""
    from mmtrain.engine.build import build_engine
    from mmtrain.loop import train
    from mmtrain.monitor.folder import RunFolder
    from mmtrain.parallel.device import device_name, precision_name
    from mmtrain.tasks.choice import build_scorer

    is_first = place.groups.rank == 0
    folder = RunFolder(plan.run_dir, writes=is_first)
    folder.copy_inputs(plan)
    evaluation = build_scorer(plan, place, heldout)
    num_pieces = stream.tokenizer.num_pieces
    engine = build_engine(plan, place, num_pieces=num_pieces, evaluation=evaluation, received=lambda: signals.received)
    pictures = heldout.pictures(plan.eval.num_pictures) if heldout else []
    meters = folder.meters(
        plan,
        num_devices=place.groups.grid.world_size,
        device_name=device_name(place.device),
        precision=precision_name(place.dtype),
        images=pictures,
        captions=heldout.captions if heldout else (),
    )
    try:
        with on_this_rank(DataError, lambda: f"in step {engine.num_steps_done + 1}"):
            report = train(plan, engine, stream, keeper, meters, oversight=oversight)
    finally:
        stream.close()
        meters.close()
        folder.close()
    folder.show_results(report)
