"""What a fine-tuning run takes over from what it begins with: shape, places of data, tokenizer. No torch."""

from pathlib import Path
from typing import Any

from mmtrain.config.load import ConfigError, read_config
from mmtrain.config.schema import RunConfig
from mmtrain.config.trust import foreign

OF_RUN, OF_EXPORT = "config.yaml", "training.yaml"  # the config in a run's folder, and in an export's
FROM_DATA = ("train", "heldout")  # places of data, where the run names no others


def laid_under(plan: RunConfig) -> dict[str, Any]:
    """The sections that lie under the config of a run; none of one that pretrains, or begins with no run or export."""
    if plan.task.name == "pretrain" or plan.model.init_from is None:
        return {}
    # A run goes on also when what it began with is gone: its own folder says the same by then.
    written = next(filter(None, map(written_config, (plan.model.init_from, plan.run_dir))), None)
    return {} if written is None else _inherited(written)


def written_config(folder: Path) -> Path | None:
    """The config of a run or of an export; other folders have none."""
    return next((path for name in (OF_RUN, OF_EXPORT) if (path := folder / name).exists()), None)


def _inherited(written: Path) -> dict[str, Any]:
    """The shape and tokenizer; of a run also its places of data, as a stranger's (`mmtrain.config.trust`).

    An export is made to be given away: it holds no places, and what one says of them is not looked at.
    """
    config, refusals = read_config(written, (), trusted=False, opened=())
    if refusals:
        raise ConfigError([f"{written}: {refusal.sentence}" for refusal in refusals])
    theirs = config.model_dump(mode="json")
    model = {name: value for name, value in theirs["model"].items() if name not in ("init_from", "init_towers")}
    data: dict[str, Any] = {"tokenizer": str(written.parent / "tokenizer.model")}
    if written.name == OF_RUN:
        data |= {name: foreign(theirs["data"][name]) for name in FROM_DATA if theirs["data"][name]}
    return {"model": model, "data": data}
