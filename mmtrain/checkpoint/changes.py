"""What may differ between the run that wrote a checkpoint and the one that goes on from it. No torch."""

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from mmtrain.checkpoint.manifest import Manifest
from mmtrain.config.load import ConfigError
from mmtrain.config.schema import RunConfig

FREE = (  # knobs that mean the same run: where it is, on how many ranks, how fast, how long, and what is watched of it
    "run_dir",
    "parallel.*",
    "zero.stage",
    "zero.gather",
    "train.num_steps",  # the learning rate goes on along the longer or shorter schedule
    "train.micro_batch_size",  # but see `block_of`
    "model.recompute.*",
    "model.init_*",  # its weights are in the checkpoint by now
    "data.train",  # told apart by what is in the sets, wherever they lie
    "data.heldout",
    "data.tokenizer",  # told apart by its checksum
    "data.num_workers",
    "data.max_*_share",
    "data.cache_*",
    "data.read_*",
    "eval.*",
    "task.num_beams",
    "task.length_penalty",
    "task.no_repeat_ngram",
    "task.max_new_tokens",
    "task.shortlist",
    "task.temperature",
    "task.top_*",
    "checkpoint.*",
    "invariants.*",
    "survival.*",
)
BLOCK = "train.micro_batch_size"
MAX_SHOWN = 4  # entries of a list in a sentence


class Changes:
    """Refuses what would change the meaning of a run; `allowed` are knobs whose change is wanted all the same.

    `order_knobs` says which knob sets each entry of a stream's state that the order of the samples depends on.
    """

    def __init__(self, order_knobs: Mapping[str, str], allowed: Collection[str] = ()) -> None:
        self._order_knobs, self._allowed = order_knobs, allowed

    def refuse(self, there: Manifest, here: Manifest) -> None:
        """ConfigError with every knob that differs and may not, as it was and as it is."""
        found = {knob: change for knob, change in self.between(there, here) if not self._allows(knob)}
        if found:
            changes = "".join(f"\n      {knob}: {change}" for knob, change in found.items())
            raise ConfigError(
                [
                    f"{here.config['run_dir']} holds a run that meant something else (was -> is):{changes}\n"
                    "    set them as they were, name another run_dir, or allow them: --override-resume "
                    f"{','.join(found)}"
                ]
            )

    def _allows(self, knob: str) -> bool:
        """Whether a knob or its section was named."""
        return any(knob == name or knob.startswith(f"{name}.") for name in self._allowed)

    def between(self, there: Manifest, here: Manifest) -> Iterator[tuple[str, str]]:
        """Knobs whose change would make it another run, with what was and what is."""
        yield from _config_changes(there.config, here.config)
        was, now = _kinds(there.config), _kinds(here.config)
        if was != now:
            yield "data.train", f"weights and modalities of its sets, {was} -> {now}"
        for key, knob in self._order_knobs.items():
            was, now = there.stream.get(key), here.stream.get(key)
            if was != now and knob in FREE:  # the others are in the config
                yield knob, f"{key} {was} -> {now}"
        if there.tokenizer_sha256 != here.tokenizer_sha256:
            yield "data.tokenizer", f"sha256 {there.tokenizer_sha256[:12]}... -> {here.tokenizer_sha256[:12]}..."
        was, now = block_of(there), block_of(here)
        if None not in (was, now) and was != now:
            yield BLOCK, f"the block that itc.negatives=micro_batch contrasts, data-parallel ranks x it, {was} -> {now}"

    def keep_order(self, there: Manifest, here: Manifest) -> bool:
        """Whether the samples go on in the same order."""
        return all(there.stream.get(key) == here.stream.get(key) for key in self._order_knobs)


def block_of(manifest: Manifest) -> int | None:
    """How many samples are contrasted with each other, where that depends on the layout."""
    config = manifest.config
    depends = config["loss"]["itc"] > 0 and config["itc"]["negatives"] == "micro_batch" and "dp" in manifest.layout
    return manifest.layout["dp"] * config["train"]["micro_batch_size"] if depends else None


def _config_changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    was, now = dict(_flat(there)), dict(_flat(here))
    defaults = dict(_flat(RunConfig().model_dump(mode="json")))  # of knobs that did not exist when it was written
    for knob in sorted(was.keys() | now.keys()):
        before, after = was.get(knob, defaults.get(knob)), now.get(knob, defaults.get(knob))
        if before != after and not any(fnmatchcase(knob, free) for free in FREE):
            yield knob, f"{_short(before)} -> {_short(after)}"


def _short(value: Any) -> str:
    """A value in a sentence; of a long list, such as answers, how long it is and how it begins."""
    if not isinstance(value, list) or len(value) <= MAX_SHOWN:
        return str(value)
    return f"{len(value)} of {', '.join(map(str, value[:MAX_SHOWN]))}, ..."


def _kinds(config: Mapping[str, Any]) -> list[tuple[float | None, str]]:
    """How the sets of data.train that say so are drawn and read, wherever they lie."""
    sets = [place for place in config["data"]["train"] if isinstance(place, Mapping)]
    kinds = [(entry["weight"], entry["modality"]) for entry in sets]
    return [kind for kind in kinds if kind != (None, "image_text")]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
