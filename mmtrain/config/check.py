"""What one knob cannot know of another, and of the number of ranks: found before anything starts."""

import math
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mmtrain.config.layout import layout_faults, nearest_divisor, nearest_multiple
from mmtrain.config.load import ConfigError, read_config
from mmtrain.config.schema import ModelConfig, RunConfig, SurvivalConfig
from mmtrain.config.section import MIN_TEMPERATURE
from mmtrain.config.trust import PLACES

MIN_TEXT_LENGTH = 3  # [CLS], one piece, [SEP]
DEAF_TO = {"SIGKILL", "SIGSTOP", "SIGCHLD", "SIGSEGV", "SIGFPE", "SIGILL", "SIGBUS", "SIGABRT"}
MIN_POOL_SIZE = 2  # a pair and one candidate for its negative


def load_checked(
    path: Path | None,
    overrides: Sequence[str],
    world_size: int,
    under: Mapping[str, Any] = MappingProxyType({}),
    *,
    trusted: bool = True,
    opened: Sequence[str] = PLACES,
) -> RunConfig:
    """The run as `read_config` reads it, fit for `world_size` ranks; one ConfigError with the faults of both."""
    config, refusals = read_config(path, overrides, under, trusted=trusted, opened=opened)
    # A knob that could not be read stands at its default here: what that default clashes with is nobody's fault.
    faults = [
        fault for fault in find_faults(config, world_size) if not any(_names(fault, bad.knob) for bad in refusals)
    ]
    if refusals or faults:
        raise ConfigError([refusal.sentence for refusal in refusals] + faults)
    return config


def check(config: RunConfig, world_size: int, num_pieces: int | None = None) -> None:
    """Nothing, or ConfigError with all faults of `config` on `world_size` ranks at once."""
    faults = find_faults(config, world_size, num_pieces)
    if faults:
        raise ConfigError(faults)


def find_faults(config: RunConfig, world_size: int, num_pieces: int | None = None) -> list[str]:
    """Every relation that does not hold, one sentence each, with the knob, what was got and a legal neighbour.

    `num_pieces` of the tokenizer, once it has been read, bring the vocabulary into the check.
    """
    return [
        *find_faults_without_data(config, world_size, num_pieces),
        *_beginning_faults(config),
        *_data_faults(config),
    ]


def find_faults_without_data(config: RunConfig, world_size: int, num_pieces: int | None = None) -> list[str]:
    """The same, of a run that is only planned and has no data yet."""
    return [
        *shape_faults(config.model),
        *layout_faults(config, world_size, num_pieces),
        *_objective_faults(config),
        *_tuning_faults(config),
        *_task_faults(config),
        *_schedule_faults(config),
        *_survival_faults(config.survival),
    ]


def _names(fault: str, knob: str) -> bool:
    """Whether a sentence speaks of `knob`, or of one in it where it is a section."""
    return bool(knob) and re.search(rf"(?<![\w.]){re.escape(knob)}\b", fault) is not None


def shape_faults(model: ModelConfig) -> list[str]:
    """What makes sizes of a model unfit for each other, a sentence each."""
    faults = []
    if model.hidden_size % model.num_heads:
        faults.append(
            f"model.num_heads is {model.num_heads}, which does not divide model.hidden_size ({model.hidden_size}); "
            f"the nearest that does is {nearest_divisor(model.hidden_size, model.num_heads)}"
        )
    else:
        faults += _tower_faults(model)
    if model.vision_pooling == "first" and not model.vision_class_token:
        faults.append(
            "model.vision_pooling is first, but model.vision_class_token is false, so the first token is a patch; "
            "set model.vision_pooling=attention"
        )
    if model.image_size % model.patch_size:
        faults.append(
            f"model.patch_size is {model.patch_size}, which does not divide model.image_size ({model.image_size}); "
            f"the nearest that does is {nearest_divisor(model.image_size, model.patch_size)}"
        )
    if model.max_text_length < MIN_TEXT_LENGTH:
        faults.append(f"model.max_text_length is {model.max_text_length}; wanted at least {MIN_TEXT_LENGTH}")
    return faults


def _tower_faults(model: ModelConfig) -> list[str]:
    widths = {"model.vision_hidden_size": model.vision_width, "model.text_hidden_size": model.text_width}
    return [
        f"{knob} is {width}, not a multiple of the size of a head ({model.head_size}: model.hidden_size / "
        f"model.num_heads); the nearest is {nearest_multiple(model.head_size, width)}"
        for knob, width in widths.items()
        if width % model.head_size
    ]


def _objective_faults(config: RunConfig) -> list[str]:
    loss, pool_size, micro_batch_size = config.loss, config.itm.pool_size, config.train.micro_batch_size
    faults = []
    if loss.mlm == loss.itc == loss.of_itm == loss.of_lm == loss.answer == 0:
        faults.append("loss.mlm, loss.itc and loss.vlp are all 0, so there is nothing to learn; give one a weight")
    if loss.mlm > 0 and config.mlm.mask_share == 0:
        faults.append("mlm.mask_share is 0, so loss.mlm has no tokens; set loss.mlm=0 or a share such as 0.15")
    if loss.of_itm > 0 and pool_size < MIN_POOL_SIZE:
        faults.append(f"itm.pool_size is {pool_size}; wanted at least {MIN_POOL_SIZE}, else no negative can be drawn")
    elif loss.of_itm > 0 and micro_batch_size % pool_size:
        nearest = nearest_divisor(micro_batch_size, pool_size)
        faults.append(
            f"itm.pool_size is {pool_size}, which does not divide train.micro_batch_size ({micro_batch_size}); "
            + (f"the nearest that does is {nearest}" if nearest >= MIN_POOL_SIZE else "raise train.micro_batch_size")
        )
    return faults


def _tuning_faults(config: RunConfig) -> list[str]:
    finetune, loss = config.finetune, config.loss
    only_compares = loss.mlm == loss.of_itm == loss.of_lm == loss.answer == 0
    if not finetune.lora.rank and finetune.lora.beside:
        return [
            "finetune.lora.beside names what moves beside LoRA's matrices, but finetune.lora.rank is 0; give a rank"
        ]
    if not finetune.moving:
        return [
            "finetune.freeze names every part, so there is nothing to learn; leave one out, or set finetune.lora.rank"
        ]
    if only_compares and finetune.moving <= {"fusion"}:
        return [
            "finetune lets only the fusion stack move, which loss.itc alone does not reach; let a tower move as well"
        ]
    return []


def _beginning_faults(config: RunConfig) -> list[str]:
    if not config.finetune.frozen or config.model.init_from is not None:
        return []
    knob = "finetune.lora.rank" if config.finetune.lora.rank else "finetune.freeze"
    return [
        f"{knob} keeps weights as they came, but model.init_from is not given, so they would stay as they were drawn; "
        "name a run or an export to begin with"
    ]


def _task_faults(config: RunConfig) -> list[str]:
    task, faults = config.task, []
    chooses = task.name == "vqa" and task.answering == "choose"
    if config.loss.answer > 0 and not chooses:
        faults.append(
            "loss.answer asks for a choice among answers, which only task.name=vqa task.answering=choose offers; "
            "set loss.answer=0"
        )
    if task.prompt and task.name != "caption":
        faults.append(f"task.prompt is {task.prompt!r}, but task.name is {task.name}; only captions have one")
    if task.temperature > 0 and task.num_beams > 1:
        faults.append(
            f"task.temperature is {task.temperature:g}, but task.num_beams is {task.num_beams}: drawing follows one "
            "text; set task.num_beams=1, or task.temperature=0 to search"
        )
    if 0 < task.temperature < MIN_TEMPERATURE:
        faults.append(
            f"task.temperature is {task.temperature:g}; wanted 0 to search, or at least {MIN_TEMPERATURE:g} to draw"
        )
    if task.name != "vqa":
        return faults
    if task.answering != "write" and not task.answers:
        faults.append(
            f"task.answering is {task.answering}, but task.answers is not given; name a file with an answer a line "
            "(`mmdata answers` makes one)"
        )
    room, length = task.max_new_tokens or 0, config.model.max_text_length
    if not chooses and not 2 <= room <= length - MIN_TEXT_LENGTH:
        faults.append(
            f"task.max_new_tokens is {task.max_new_tokens}: a question and its answer share model.max_text_length "
            f"({length}) tokens, and [SEP] is one of an answer's; wanted from 2 to {length - MIN_TEXT_LENGTH}"
        )
    return faults


def _schedule_faults(config: RunConfig) -> list[str]:
    train, itc = config.train, config.itc
    faults = [
        f"train.{name} is {value:g}; wanted less than 1"
        for name, value in (("beta1", train.beta1), ("beta2", train.beta2))
        if math.isclose(value, 1.0)
    ]
    if train.warmup_steps > train.num_steps:
        faults.append(f"train.warmup_steps is {train.warmup_steps}; wanted at most train.num_steps ({train.num_steps})")
    if itc.min_temperature > itc.max_temperature:
        faults.append(
            f"itc.min_temperature is {itc.min_temperature:g}; wanted at most itc.max_temperature "
            f"({itc.max_temperature:g})"
        )
    elif not itc.min_temperature <= itc.initial_temperature <= itc.max_temperature:
        faults.append(
            f"itc.initial_temperature is {itc.initial_temperature:g}; wanted between itc.min_temperature "
            f"({itc.min_temperature:g}) and itc.max_temperature ({itc.max_temperature:g})"
        )
    return faults


def _survival_faults(survival: SurvivalConfig) -> list[str]:
    known = {each.name for each in signal.Signals} - DEAF_TO
    return [
        f"survival.signals names {name}, which a run cannot listen for; name signals such as SIGTERM or SIGUSR2"
        for name in survival.signals
        if name not in known
    ]


def _data_faults(config: RunConfig) -> list[str]:
    data = config.data
    faults = []
    if not data.train:
        faults.append(
            "data.train is not given; name a shard folder, a tar file or a pattern (`mmdata synth` makes one)"
        )
    if data.tokenizer is None:
        faults.append("data.tokenizer is not given; name a sentencepiece model (`mmdata tokenizer` makes one)")
    if data.max_aspect > 1:
        faults += _bucket_faults(config)
    if config.eval.every > 0 and not data.heldout:
        faults.append(f"eval.every is {config.eval.every}, but data.heldout is not given; name one or set eval.every=0")
    return faults


def _bucket_faults(config: RunConfig) -> list[str]:
    asked, sets = f"data.max_aspect is {config.data.max_aspect:g}", config.data.sets
    faults = []
    if config.parallel.pp > 1:
        faults.append(
            f"{asked}, but parallel.pp is {config.parallel.pp}: pipeline stages exchange packets of one shape; "
            "set parallel.pp=1, or data.max_aspect=1 for square images"
        )
    if len(sets) > 1:
        faults.append(
            f"{asked}, but data.train is a blend of {len(sets)} sets, whose global batches hold images of all shapes; "
            "name the places of one set, or set data.max_aspect=1"
        )
    elif sets and sets[0].modality == "text":
        faults.append(f"{asked}, but data.train has no images (modality: text); set data.max_aspect=1")
    return faults
