"""A save on its way: every rank writes by itself in the background, and at steps' ends all look how it stands.

What writes talks to no other rank. What ranks have to agree on is agreed on by their main threads.
"""

import logging
import shutil
from concurrent.futures import Future, wait
from pathlib import Path

from mmtrain.checkpoint.folders import folder_of, partial_of
from mmtrain.checkpoint.manifest import Manifest
from mmtrain.checkpoint.staging import Parts
from mmtrain.checkpoint.writers import ThreadWriter
from mmtrain.parallel.meeting import count_of_all, rank_and_size, told_by_all, told_to_first

LOG = logging.getLogger("mmtrain.checkpoint")


class Save:
    """From this rank's tensors to a checkpoint that stands, or to `fault`, the same sentence on every rank."""

    def __init__(self, checkpoints: Path, manifest: Manifest, writer: ThreadWriter, parts: Parts) -> None:
        """Every rank must call it."""
        self.step, self.fault = manifest.step, ""
        self._folder, self._manifest, self._writer = folder_of(checkpoints, manifest.step), manifest, writer
        self._rank, _ = rank_and_size()
        self._is_written = False
        self._work: Future = writer.run(self._prepare)
        if self._is_over():
            return
        writer.take(parts)
        self._work = writer.write(partial_of(self._folder))

    def advance(self, *, to_the_end: bool = False) -> bool:
        """Whether the save is over, well or with a `fault`. Every rank must call it, and never waits for a disk.

        With `to_the_end` it waits until it is.
        """
        while not self.fault:
            if to_the_end:
                wait([self._work])
            if count_of_all(not self._work.done()):
                return False
            if self._is_over() or self._is_written:
                break
            self._hand_over()
            if not to_the_end:
                return False
        return True

    def _prepare(self) -> None:
        """On the first rank: an empty folder to write into."""
        if self._rank == 0:
            partial = partial_of(self._folder)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)

    def _hand_over(self) -> None:
        """All have written: the first rank makes a checkpoint of it."""
        self._is_written = True
        written = told_to_first(self._work.result())
        if written is not None:
            self._work = self._writer.commit(self._folder, self._manifest, written)

    def _is_over(self) -> bool:
        """Whether any rank's work has failed; then its remains are gone and `fault` says why."""
        wait([self._work])
        faults = [fault for fault in told_by_all(self._own_fault()) if fault]
        if not faults:
            return False
        if self._rank == 0:
            shutil.rmtree(partial_of(self._folder), ignore_errors=True)
        self.fault = (
            f"the checkpoint after step {self.step} could not be written to {self._folder.parent}: {faults[0]}; "
            "the older ones stand as they were"
        )
        return True

    def _own_fault(self) -> str:
        error = self._work.exception()
        if error is None:
            return ""
        cause = next((link for link in _chain(error) if isinstance(link, OSError)), None)
        if cause is None:
            LOG.error("rank %d could not write its part of a checkpoint", self._rank, exc_info=error)
        reason = cause.strerror if cause is not None and cause.strerror else f"{type(error).__name__}: {error}"
        return f"rank {self._rank}: {reason}"


def _chain(error: BaseException) -> list[BaseException]:
    """An error and all that led to it."""
    links, link = [], error
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__ or link.__context__
    return links
