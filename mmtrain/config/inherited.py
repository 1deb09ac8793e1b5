"""What a fine-tuning run takes over from what it begins with: shape, places of data, tokenizer. No torch."""

from pathlib import Path
from typing import Any

from mmtrain.config.load import load_config
from mmtrain.config.schema import RunConfig

FROM_DATA = ("train", "heldout")  # places of data, where the run names no others
WRITTEN = ("config.yaml", "training.yaml")  # the config in a run's folder, and in an export's


def laid_under(plan: RunConfig) -> dict[str, Any]:
    """The sections that lie under the config of a run; none of one that pretrains, or begins with no run or export."""
    if plan.task.name == "pretrain" or plan.model.init_from is None:
        return {}
    # A run goes on also when what it began with is gone: its own folder says the same by then.
    written = next(filter(None, map(written_config, (plan.model.init_from, plan.run_dir))), None)
    return {} if written is None else _inherited(written)


def written_config(folder: Path) -> Path | None:
    """The config of a run or of an export; other folders have none."""
    return next((path for name in WRITTEN if (path := folder / name).exists()), None)


def _inherited(written: Path) -> dict[str, Any]:
    theirs = load_config(written, ()).model_dump(mode="json")
    model = {name: value for name, value in theirs["model"].items() if name not in ("init_from", "init_towers")}
    data = {name: theirs["data"][name] for name in FROM_DATA} | {"tokenizer": str(written.parent / "tokenizer.model")}
    return {"model": model, "data": data}
