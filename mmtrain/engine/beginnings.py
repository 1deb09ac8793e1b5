"""Where first weights come from that are not drawn: another run, its export, or other people's towers."""

import logging
import math
from collections.abc import Sequence

import torch

from mmtrain.checkpoint.beginning import RunSource, is_run
from mmtrain.config.load import ConfigError
from mmtrain.config.schema import RunConfig
from mmtrain.config.tuning import HEADS, POSITIONS, is_low_rank
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.io.errors import InputError
from mmtrain.model.chunks import StageModel
from mmtrain.model.vision import positions_on_grid
from mmtrain.parallel.slices import Slice

LOG = logging.getLogger("mmtrain.engine")


def refuse_unfit_source(plan: RunConfig, tokenizer: Tokenizer) -> None:
    """Nothing, or ConfigError where model.init_from does not fit the model or the tokenizer, with every reason."""
    if not _is_wanted(plan):
        return
    from mmtrain.hf.sources import open_source

    folder = plan.model.init_from
    try:
        source = RunSource(folder) if is_run(folder) else open_source(folder, plan.model.init_towers)
    except InputError as error:
        raise ConfigError([str(error)]) from None
    faults = [*source.faults(plan.model, tokenizer.sha256), *_answer_faults(plan, source.answers)]
    if isinstance(source, RunSource):
        faults += source.lora_faults(plan.finetune.lora)
    if plan.loss.answer > 0 and not source.answers and HEADS in plan.finetune.frozen:
        faults.append(
            f"model.init_from ({folder}) has no head for answers, and finetune keeps heads as they come: one that was "
            "drawn would never learn; set finetune.lora.beside=heads, or do not freeze heads"
        )
    if faults:
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
        _begin_from_run(plan, model, slices, says_so=says_so)
        return
    from mmtrain.hf.sources import open_source

    source = open_source(plan.model.init_from, plan.model.init_towers)
    for name, param in model.named_parameters():
        if name == POSITIONS and name in source:
            _place_on_grid(source.positions(), param, plan, says_so=says_so)
        elif name in source:
            source.fill(param.data, name, slices[name].index)
    for line in source.table() if says_so else ():
        LOG.info("%s", line)


def _begin_from_run(plan: RunConfig, model: StageModel, slices: dict[str, Slice], *, says_so: bool) -> None:
    source = RunSource(plan.model.init_from)
    params = dict(model.named_parameters())
    wanted = {slices[name]: param.data for name, param in params.items() if name != POSITIONS}
    positions = params.get(POSITIONS)
    if positions is not None:
        theirs = torch.empty(source.shape(POSITIONS))
        wanted[Slice.of_part(POSITIONS, tuple(theirs.shape), None, 0, 1)] = theirs
    missing = source.fill_all(wanted)
    if positions is not None:
        _place_on_grid(theirs, positions, plan, says_so=says_so)
    if says_so:
        LOG.info("first weights: from %s, after step %d", source.folder, source.manifest.step)
    if drawn := [name for name in missing if not is_low_rank(name)]:
        LOG.info("drawn anew, for that run has none: %s", ", ".join(drawn))


def _place_on_grid(theirs_SH: torch.Tensor, own: torch.nn.Parameter, plan: RunConfig, *, says_so: bool) -> None:
    """Take the positions of a source's grid of patches, for another size of images read off between them."""
    side = plan.model.image_size // plan.model.patch_size
    num_first = int(plan.model.vision_class_token)
    own.data.copy_(positions_on_grid(theirs_SH, num_first, side, side))
    their_side = math.isqrt(len(theirs_SH) - num_first)
    if says_so and their_side != side:
        LOG.info("positions of %d x %d patches: read off those of %d x %d", side, side, their_side, their_side)


def _is_wanted(plan: RunConfig) -> bool:
    """Not where a checkpoint holds newer weights: a run goes on also when its source is gone."""
    return plan.model.init_from is not None and not (plan.run_dir / "checkpoints" / "latest").exists()
