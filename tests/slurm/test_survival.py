"""What may befall a job amid its run: a requeue from outside, killed ranks, a lost node, the time limit, its cap."""

import json
from pathlib import Path

import pytest

from tests.doors.conftest import Prepared
from tests.slurm.cluster import Cluster
from tests.slurm.jobs import Job, restarts, rows
from tests.slurm.runs import (
    DP_TP,
    JOB_SECONDS,
    NUM_STEPS,
    TP_PP,
    assert_same,
    kill_ranks,
    submit,
    wait_for_restart,
    wait_for_steps,
)

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]
SAVES = ("checkpoint.save_every=3",)
COMPLETED = f"completed at step {NUM_STEPS} of {NUM_STEPS}"


def assert_it_came_back(job: Job, undisturbed: Path, *parts: str) -> None:
    """It ran once more, for a reason that has these parts, and ended as if nothing had been."""
    assert job.wait_for_end(2 * JOB_SECONDS) == "COMPLETED", job.said()
    told = restarts(job.folder / "run")
    assert job.shown()["Restarts"] == "1" and told[-1] == COMPLETED, told
    assert all(part in told[1] for part in parts), told
    assert_same(job.folder / "run", undisturbed)


def test_a_requeue_from_outside_goes_on_and_is_told(
    cluster: Cluster, prepared: Prepared, undisturbed: Path, tmp_path: Path
) -> None:
    job = submit(prepared, tmp_path, *TP_PP, *SAVES, PREFLIGHT="no")
    wait_for_steps(job, 7)
    job.requeue()
    assert_it_came_back(job, undisturbed)


@pytest.mark.parametrize("layout", [TP_PP, DP_TP], ids=["tp-pp", "dp-tp"])
def test_a_node_whose_processes_are_killed_costs_the_steps_since_the_last_save(
    layout: tuple[str, ...], cluster: Cluster, prepared: Prepared, undisturbed: Path, tmp_path: Path
) -> None:
    job = submit(prepared, tmp_path, *layout, *SAVES, PREFLIGHT="no")
    wait_for_steps(job, 7)
    assert kill_ranks(cluster, "node2") >= 2
    assert_it_came_back(job, undisturbed, "requeued")


def test_a_lost_node_is_replaced_by_another(
    cluster: Cluster, prepared: Prepared, undisturbed: Path, tmp_path: Path
) -> None:
    job = submit(prepared, tmp_path, *DP_TP, *SAVES, PREFLIGHT="no")
    wait_for_steps(job, 7)
    cluster.crash("node2")
    try:
        # Slurm may find it first and say nothing, or the ranks that are left, which give a reason.
        assert_it_came_back(job, undisturbed)
        assert "starts on node1,node3" in "\n".join(restarts(tmp_path / "run"))
    finally:
        cluster.boot("node2")
        cluster.wait_for("node2")


def test_slurms_own_signal_before_the_time_limit_brings_the_job_back(
    cluster: Cluster, prepared: Prepared, tmp_path: Path
) -> None:
    words = [prepared.config, "run_dir=run", "train.num_steps=100000", *DP_TP]
    limits = ("--gpus-per-node=2", "--time=3", "--signal=B:USR1@120")  # Slurm looks every half minute
    job = Job.submit("pretrain.sh", words, tmp_path, *limits, PREFLIGHT="no")
    wait_for_restart(job, 1)
    job.scancel()
    told = restarts(tmp_path / "run")
    assert told[1].startswith("preempted at step ") and "the time limit or a preemption is near" in told[1], told


def test_the_cap_on_restarts_holds(cluster: Cluster, prepared: Prepared, tmp_path: Path) -> None:
    job = submit(prepared, tmp_path, "train.num_steps=100000", *DP_TP, PREFLIGHT="no", MAX_RESTARTS="1")
    for attempt in range(2):
        done = len(rows(tmp_path / "run"))
        wait_for_steps(job, done + 2)
        job.scancel("--batch", "--signal=USR1")
        if attempt == 0:
            wait_for_restart(job, 1)
    assert job.wait_for_end(JOB_SECONDS) == "FAILED"
    told = restarts(tmp_path / "run")
    assert job.shown()["Restarts"] == "1" and len(told) == 4, told
    assert told[3].startswith("preempted at step ") and told[3].endswith("not requeued: MAX_RESTARTS=1 is reached")


def test_a_run_that_ends_at_one_step_again_and_again_is_given_up(
    cluster: Cluster, prepared: Prepared, tmp_path: Path
) -> None:
    def begun(attempt: int) -> bool:
        status = tmp_path / "run" / "status.json"
        return status.exists() and json.loads(status.read_text())["attempt"] == attempt

    job = submit(prepared, tmp_path, *DP_TP, PREFLIGHT="no", LEAVE_SECONDS="1")
    for attempt in range(3):
        job.wait_until(lambda attempt=attempt: begun(attempt), JOB_SECONDS)
        kill_ranks(cluster, job.shown()["NodeList"].replace("[", "").split("-")[0].split(",")[0])
    assert job.wait_for_end(JOB_SECONDS) == "FAILED"
    told = restarts(tmp_path / "run")
    assert job.shown()["Restarts"] == "2", told
    assert told[-1].endswith(f"not requeued, as it ended at step 0 of {NUM_STEPS} twice before"), told


def test_a_job_that_its_user_cancels_stays_cancelled(cluster: Cluster, prepared: Prepared, tmp_path: Path) -> None:
    job = submit(prepared, tmp_path, *DP_TP, PREFLIGHT="no")
    wait_for_steps(job, 2)
    job.scancel()
    assert job.wait_for_end(60) == "CANCELLED"
    assert job.shown()["Restarts"] == "0"


def test_the_other_launcher_trains_saves_and_evaluates(
    cluster: Cluster, prepared: Prepared, undisturbed: Path, tmp_path: Path
) -> None:
    job = submit(prepared, tmp_path, *DP_TP, PREFLIGHT="no", LAUNCHER="deepspeed")
    wait_for_steps(job, 5)
    job.scancel("--batch", "--signal=USR1")
    assert_it_came_back(job, undisturbed, "preempted at step ", "requeued")
    for launcher in ("deepspeed", "torchrun"):
        (tmp_path / launcher).mkdir()
        scoring = Job.submit(
            "evaluate.sh", ["../run", "parallel.tp=2"], tmp_path / launcher, "--gpus-per-node=2", LAUNCHER=launcher
        )
        assert scoring.wait_for_end(JOB_SECONDS) == "COMPLETED", scoring.said()
        assert "held-out scores" in scoring.said()
