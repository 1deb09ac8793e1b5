"""Keeps a run: one checkpoint after another in its folder, and goes on from the newest."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from mmtrain.checkpoint.changes import Changes
from mmtrain.checkpoint.faults import CheckpointError
from mmtrain.checkpoint.folders import mend, remove, unfinished
from mmtrain.checkpoint.load import find_whole, load_tensors
from mmtrain.checkpoint.manifest import Manifest
from mmtrain.checkpoint.planners import RectanglesOut
from mmtrain.checkpoint.saving import Save
from mmtrain.checkpoint.write import agree_on_rectangles
from mmtrain.checkpoint.writers import ProcessWriter, ThreadWriter
from mmtrain.config.schema import CheckpointConfig
from mmtrain.parallel.meeting import rank_and_size, told_by_all
from mmtrain.parallel.slices import Slice

LOG = logging.getLogger("mmtrain.checkpoint")


class Kept(Protocol):
    """What can be kept of an engine, and given back to it."""

    def held(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        """The rectangles that lie on this rank."""
        ...

    def kept(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        """Those of them that this rank is to write."""
        ...

    def hold(self, until: Callable[[], None]) -> None:
        """Change none of them before `until` has returned."""
        ...

    def progress(self) -> dict[str, int]:
        """What is needed beside them to go on."""
        ...

    def take_up(self, progress: dict[str, int]) -> None:
        """Go on from what was written into `held`."""
        ...


class Located(Protocol):
    """What can be kept of a stream."""

    def state(self) -> dict[str, Any]:
        """Where the data stands."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


class Keeper:
    """Saves to RUN_DIR/checkpoints and resumes from there; every rank must call every method at the same step.

    `here` says what this run is; `changes` which of that may differ from what a checkpoint was written by.
    """

    def __init__(self, run_dir: Path, here: Manifest, plan: CheckpointConfig, changes: Changes) -> None:
        self.checkpoints = run_dir / "checkpoints"
        self._here, self._plan, self._changes = here, plan, changes
        self._rank, _ = rank_and_size()
        self.save_seconds = 0.0  # that the last one took, until it stood
        self._started = 0.0
        self._newest_step: int | None = None  # what stands, or is on its way
        self._save: Save | None = None
        keep = {"keep_last": plan.keep_last, "keep_every": plan.keep_every}
        self.writer = (ProcessWriter if plan.asynchronous else ThreadWriter)(self._rank, keep)
        self._places: list[Slice] | None = None

    def resume(self, engine: Kept, stream: Located) -> int:
        """Take up the newest whole checkpoint and return its step; 0 where the run folder holds none.

        ConfigError where it is of a run that meant something else, CheckpointError where none is whole.
        """
        self.finish()
        self._agree_on(list(engine.kept()))
        self._tidy()
        found = find_whole(self.checkpoints)
        if found is None:
            return 0
        manifest = found.manifest
        self._changes.refuse(manifest, self._here)
        load_tensors(found.folder, dict(engine.held()))
        engine.take_up(manifest.engine)
        if self._changes.keep_order(manifest, self._here):
            stream.restore(manifest.stream)
        else:
            LOG.warning("the samples come in another order from here on, which begins anew (--override-resume)")
        self._newest_step = manifest.step
        LOG.info("going on after step %d, from %s", manifest.step, found.folder)
        return manifest.step

    def save(self, step: int, engine: Kept, stream: Located) -> None:
        """Keep everything that must survive a crash; the run goes on as soon as it is copied, or when it is written.

        CheckpointError, with checkpoint.on_failure=stop, where this save or the one before cannot be written.
        """
        if step == self._newest_step:
            return
        self.finish()
        manifest = replace(self._here, step=step, stream=stream.state(), engine=engine.progress())
        parts = list(engine.kept())
        self._agree_on(parts)
        self._newest_step = step
        self._started = time.monotonic()
        self._save = Save(self.checkpoints, manifest, self.writer, parts)
        if self._plan.asynchronous:
            engine.hold(self.writer.wait_until_taken)
            self.attend()
        else:
            self.finish()

    def attend(self) -> None:
        """Bring a save that is on its way closer to its end; to be called after every step. Waits for no disk."""
        if self._save is not None and self._save.advance():
            self._conclude(self._save)

    def finish(self) -> None:
        """Wait until the last save stands or has failed."""
        if self._save is not None and self._save.advance(to_the_end=True):
            self._conclude(self._save)

    def can_go_back(self) -> bool:
        """Whether a checkpoint stands that `resume` would take up; waits for one that is on its way."""
        self.finish()
        return self._newest_step is not None

    def _conclude(self, save: Save) -> None:
        self._save = None
        self.save_seconds = time.monotonic() - self._started
        if not save.fault:
            LOG.info("step %d: saved", save.step)
            return
        self._newest_step = None
        if self._plan.on_failure == "stop":
            raise CheckpointError(f"{save.fault}; make room or set checkpoint.on_failure=go_on, and start again")
        LOG.warning("%s; the run goes on (checkpoint.on_failure)", save.fault)

    def _agree_on(self, parts: list[tuple[Slice, torch.Tensor]]) -> None:
        places = [place for place, _ in parts]
        if self._places is None:
            self._places = places
            self.writer.lay_out(places, agree_on_rectangles(RectanglesOut(parts)))
        if places != self._places:
            raise CheckpointError("this rank holds other rectangles than when it saved before; nothing was written")

    def _tidy(self) -> None:
        """Name and remove what saves that were cut off have left."""
        fault = ""
        if self._rank == 0:
            try:
                mend(self.checkpoints)
                for folder in unfinished(self.checkpoints):
                    LOG.warning("left out and removed: %s, a save that was cut off half-written", folder)
                    remove(folder)
            except OSError as found:
                fault = f"{self.checkpoints} cannot be tidied up: {found}; give this user the right to write there"
        for said in told_by_all(fault):
            if said:
                raise CheckpointError(said)
