"""Where first weights come from that are not drawn: another run, its export, or other people's towers."""

import logging
from collections.abc import Sequence
from pathlib import Path

from mmtrain.checkpoint.beginning import RunSource, is_run
from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.config.load import ConfigError
from mmtrain.config.schema import RunConfig
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.model.chunks import StageModel
from mmtrain.parallel.slices import Slice

LOG = logging.getLogger("mmtrain.engine")


def refuse_unfit_source(plan: RunConfig, tokenizer: Tokenizer) -> None:
    """Nothing, or ConfigError where model.init_from does not fit the model or the tokenizer, with every reason."""
    if not _is_wanted(plan):
        return
    from mmtrain.hf.sources import SourceError, open_source

    folder = plan.model.init_from
    try:
        source = RunSource(folder) if is_run(folder) else open_source(folder, plan.model.init_towers)
    except (SourceError, CheckpointError) as error:
        raise ConfigError([str(error)]) from None
    if faults := [*source.faults(plan.model, tokenizer.sha256), *_answer_faults(plan, source.answers)]:
        raise ConfigError(faults)


def _answer_faults(plan: RunConfig, theirs: Sequence[str]) -> list[str]:
    """Whether both choose among answers, and not the same ones: then a head would mean something else."""
    if plan.task.answering != "choose" or not theirs or tuple(theirs) == plan.task.answers:
        return []
    return [
        f"task.answers are {len(plan.task.answers)} answers, and not the {len(theirs)} that model.init_from "
        f"({plan.model.init_from}) chooses from, in the same order; give its own list, or begin with a run or an "
        "export that has no head for answers"
    ]


def begin_from_source(plan: RunConfig, model: StageModel, slices: dict[str, Slice], *, says_so: bool) -> None:
    """Overwrite what this rank holds of the weights that model.init_from has, and with `says_so` list what it took."""
    if not _is_wanted(plan):
        return
    if is_run(plan.model.init_from):
        _begin_from_run(plan.model.init_from, model, slices, says_so=says_so)
        return
    from mmtrain.hf.sources import open_source

    source = open_source(plan.model.init_from, plan.model.init_towers)
    for name, param in model.named_parameters():
        if name in source:
            source.fill(param.data, name, slices[name].index)
    for line in source.table() if says_so else ():
        LOG.info("%s", line)


def _begin_from_run(run_dir: Path, model: StageModel, slices: dict[str, Slice], *, says_so: bool) -> None:
    source = RunSource(run_dir)
    missing = source.fill_all({slices[name]: param.data for name, param in model.named_parameters()})
    if says_so:
        LOG.info("first weights: from %s, after step %d", source.folder, source.manifest.step)
    if missing:
        LOG.info("drawn anew, for that run has none: %s", ", ".join(missing))


def _is_wanted(plan: RunConfig) -> bool:
    """Not where a checkpoint holds newer weights: a run goes on also when its source is gone."""
    return plan.model.init_from is not None and not (plan.run_dir / "checkpoints" / "latest").exists()
