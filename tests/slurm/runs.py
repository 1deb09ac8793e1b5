"""The pretraining that the tests hand in: two nodes of two ranks, and the same run on one process to compare with."""

import os
import signal
from pathlib import Path

import pytest

from mmtrain.checkpoint.manifest import read_manifest
from tests.doors.conftest import Prepared
from tests.doors.test_lost_ranks import descendants_of, environ_of
from tests.slurm.cluster import Cluster
from tests.slurm.jobs import Job, rows

NUM_STEPS = 24
WORDS = (f"train.num_steps={NUM_STEPS}", "eval.every=0", "data.num_workers=1")
TP_PP = ("parallel.tp=2", "parallel.pp=2")
DP_TP = ("parallel.tp=2", "zero.stage=3", "train.micro_batch_size=4")  # two of 4 contrast what one of 8 does
SAME = ("loss", "loss_mlm", "loss_itc", "loss_itm", "loss_lm", "grad_norm")
JOB_SECONDS = 180.0  # for a busy machine; a quiet one takes 20


def submit(prepared: Prepared, folder: Path, *words: str, **given: str) -> Job:
    """The run into folder/run; `given` are the variables of slurm/env.sh and the like."""
    all_words = [prepared.config, "run_dir=run", *WORDS, *words]
    return Job.submit("pretrain.sh", all_words, folder, "--gpus-per-node=2", **given)


def wait_for_steps(job: Job, count: int) -> None:
    """Until so many steps of the run are done."""
    job.wait_until(lambda: len(rows(job.folder / "run")) >= count, JOB_SECONDS)


def wait_for_restart(job: Job, count: int) -> None:
    """Until the job runs for the `count`-th time after the first."""
    job.wait_until(lambda: job.shown()["Restarts"] == str(count) and job.shown()["JobState"] == "RUNNING", JOB_SECONDS)


def kill_ranks(cluster: Cluster, node: str) -> int:
    """End every rank of a node, as the system does when memory runs out; how many there were."""
    inside = descendants_of(cluster.pid(node))
    ranks = [pid for pid in inside if any(word.startswith(b"RANK=") for word in environ_of(pid))]
    for pid in ranks:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # a reader that ended with its rank
    return len(ranks)


def assert_same(run_dir: Path, undisturbed: Path) -> None:
    """Every step was done, with the losses and the samples of the run that nobody disturbed."""
    found, wanted = rows(run_dir), rows(undisturbed)
    assert [row["step"] for row in found] == list(range(1, NUM_STEPS + 1))
    for row, other in zip(found, wanted, strict=True):
        assert {name: row[name] for name in SAME} == pytest.approx({name: other[name] for name in SAME}, rel=1e-4)
    assert order_hash(run_dir) == order_hash(undisturbed)


def order_hash(run_dir: Path) -> str:
    """Of every sample that the run has read, in order."""
    newest = run_dir / "checkpoints" / (run_dir / "checkpoints" / "latest").read_text().strip()
    return read_manifest(newest).stream["order_hash"]
