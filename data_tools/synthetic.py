"""`mmdata synth`: a compositional set whose held-out scenes and captions never occur in training."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random

from data_tools.captions import Wording, draw_questions, draw_wording, say
from data_tools.drawing import render
from data_tools.pack import Sample, shard_path, write_shard
from data_tools.parallel import run_in_order
from data_tools.progress import Progress
from data_tools.scenes import Kind, Scene, SceneRules, count_meanings, draw_scene, meaning, swaps
from data_tools.survey import Survey, survey_shard
from data_tools.target import new_set
from mmtrain.data.index import DataError, ShardEntry, write_manifest

# With their twins, held-out scenes are then at most half of all, so that drawing again soon finds one for training.
MAX_HELDOUT_SHARE = 0.25  # of the scenes that mean different things


@dataclass(frozen=True)
class SynthSettings:
    """What the bytes of a synthetic set follow from."""

    num_train: int
    num_heldout: int
    seed: int = 0
    image_size: int = 64  # pixels along each side
    rules: SceneRules = SceneRules()
    samples_per_shard: int = 1000


@dataclass(frozen=True)
class HeldOut:
    """A held-out scene, its caption, and the caption of its twin: the same words, false of this image."""

    scene: Scene
    wording: Wording
    twin_kind: Kind
    twin: Scene


@dataclass(frozen=True)
class Kept:
    """What training may not show."""

    meanings: frozenset[tuple[object, ...]]
    captions: frozenset[str]


@dataclass(frozen=True)
class ShardTask:
    """One shard to write; everything in it follows from these values."""

    path: Path
    split: str
    first: int  # number in the split of the shard's first sample
    count: int
    heldout: tuple[HeldOut, ...] = ()  # of a held-out shard


def synthesize(folder: Path, settings: SynthSettings, processes: int, *, overwrite: bool = False) -> dict[str, int]:
    """Write `folder`/train and `folder`/heldout; the bytes follow from `settings` alone. Returns samples per split."""
    heldout = draw_heldout(settings)
    counts = {"train": settings.num_train, "heldout": settings.num_heldout}
    splits = [split for split, count in counts.items() if count]
    if not splits:
        raise DataError("--num-train and --num-heldout are both 0; at least one sample is needed")
    with ExitStack() as stack:
        folders = {split: stack.enter_context(new_set(folder / split, overwrite=overwrite)) for split in splits}
        _write_splits(folders, settings, heldout, processes)
    return {split: counts[split] for split in splits}


def _write_splits(
    folders: dict[str, Path], settings: SynthSettings, heldout: tuple[HeldOut, ...], processes: int
) -> None:
    """Fill the folders of the splits."""
    work = partial(write_task, settings=settings, kept=kept_back(heldout))
    done: dict[str, list[ShardEntry]] = {split: [] for split in folders}
    surveys = {split: Survey() for split in folders}
    todo = [task for split in sorted(folders) for task in _tasks(folders[split], split, settings, heldout)]
    with Progress("drawing scenes", settings.num_train + settings.num_heldout) as progress:
        for task, (entry, survey) in zip(todo, run_in_order(work, todo, min(processes, len(todo))), strict=True):
            done[task.split].append(entry)
            surveys[task.split].add(survey)
            progress.advance(entry.num_samples)
    for split, entries in done.items():
        facts = {"settings": asdict(settings), "statistics": surveys[split].record()}
        write_manifest(folders[split], entries, source="mmdata synth", **facts)


def draw_heldout(settings: SynthSettings) -> tuple[HeldOut, ...]:
    """The held-out scenes with their wordings and twins; no caption of one is true of another."""
    most = int(MAX_HELDOUT_SHARE * count_meanings(settings.rules))
    if settings.num_heldout > most:
        raise DataError(f"--num-heldout is {settings.num_heldout}; at most {most} scenes of this kind can be held out")
    drawn: list[HeldOut] = []
    taken: set[tuple[object, ...]] = set()
    for number in range(settings.num_heldout):
        rng = _rng(settings, "heldout scene", number)
        scene = draw_scene(rng, settings.rules)
        while meaning(scene) in taken or not any(swaps(scene)):
            scene = draw_scene(rng, settings.rules)
        taken.add(meaning(scene))
        drawn.append(_with_twin(rng, scene))
    return tuple(drawn)


def _with_twin(rng: Random, scene: Scene) -> HeldOut:
    twins = list(swaps(scene))
    # By kind first: a scene of three objects has more swaps of one kind than of another.
    kind = rng.choice(sorted({kind for kind, _ in twins}))
    twin = rng.choice([twin for other, twin in twins if other == kind])
    return HeldOut(scene, draw_wording(rng, len(scene.things)), kind, twin)


def kept_back(heldout: tuple[HeldOut, ...]) -> Kept:
    """What training leaves out: the held-out scenes, and their twins too, so that neither of a pair was read before."""
    return Kept(
        frozenset(meaning(scene) for pair in heldout for scene in (pair.scene, pair.twin)),
        frozenset(say(scene, pair.wording) for pair in heldout for scene in (pair.scene, pair.twin)),
    )


def write_task(task: ShardTask, settings: SynthSettings, kept: Kept) -> tuple[ShardEntry, Survey]:
    """Draw, write and survey one shard."""
    samples = _heldout_samples(task, settings) if task.heldout else _train_samples(task, settings, kept)
    return write_shard(task.path, samples), survey_shard(task.path)


def _tasks(folder: Path, split: str, settings: SynthSettings, heldout: tuple[HeldOut, ...]) -> list[ShardTask]:
    total, step = (settings.num_train if split == "train" else settings.num_heldout), settings.samples_per_shard
    return [
        ShardTask(
            path=shard_path(folder, split, first // step),
            split=split,
            first=first,
            count=min(step, total - first),
            heldout=heldout[first : first + step] if split == "heldout" else (),
        )
        for first in range(0, total, step)
    ]


def _train_samples(task: ShardTask, settings: SynthSettings, kept: Kept) -> Iterator[Sample]:
    for number in range(task.first, task.first + task.count):
        rng = _rng(settings, "train", number)
        scene, wording = _draw_allowed(rng, settings.rules, kept)
        yield _sample(number, scene, say(scene, wording), settings, rng)


def _draw_allowed(rng: Random, rules: SceneRules, kept: Kept) -> tuple[Scene, Wording]:
    while True:
        scene = draw_scene(rng, rules)
        wording = draw_wording(rng, len(scene.things))
        if meaning(scene) not in kept.meanings and say(scene, wording) not in kept.captions:
            return scene, wording


def _heldout_samples(task: ShardTask, settings: SynthSettings) -> Iterator[Sample]:
    for number, pair in enumerate(task.heldout, start=task.first):
        rng = _rng(settings, "heldout", number)
        twin = {"caption": say(pair.twin, pair.wording), "kind": pair.twin_kind}
        yield _sample(number, pair.scene, say(pair.scene, pair.wording), settings, rng, twin)


def _sample(
    number: int,
    scene: Scene,
    caption: str,
    settings: SynthSettings,
    rng: Random,
    twin: dict[str, str] | None = None,
) -> Sample:
    image = render(scene, settings.image_size, rng)
    scene_record = scene.record()
    said = {
        "image_id": _digest(json.dumps(scene_record).encode() + image),
        "caption_id": _digest(caption.encode()),
        "scene": scene_record,
        "questions": draw_questions(rng, scene),
    }
    if twin:
        said["twin"] = twin
    return Sample(f"{number:08d}", {"jpg": image, "txt": caption.encode(), "json": json.dumps(said).encode()})


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _rng(settings: SynthSettings, purpose: str, number: int) -> Random:
    """A generator of its own for each sample: which process draws it, and after what, changes nothing."""
    return Random(f"{settings.seed}/{purpose}/{number}")
