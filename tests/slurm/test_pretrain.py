"""`sbatch slurm/pretrain.sh` on two nodes of two ranks: it ends, it comes back, it leaves bad nodes out."""

from pathlib import Path

import pytest

from tests.doors.conftest import Prepared
from tests.doors.launched import ROOT
from tests.slurm.cluster import Cluster
from tests.slurm.jobs import restarts
from tests.slurm.runs import JOB_SECONDS, NUM_STEPS, TP_PP, assert_same, submit, wait_for_restart, wait_for_steps

pytestmark = pytest.mark.timeout(400)


def test_a_preempted_job_saves_comes_back_and_ends_with_the_losses_of_one_process(
    cluster: Cluster, prepared: Prepared, undisturbed: Path, tmp_path: Path
) -> None:
    job = submit(prepared, tmp_path, *TP_PP)
    wait_for_steps(job, 5)
    job.scancel("--batch", "--signal=USR1")  # what --signal=B:USR1@... sends near the time limit
    assert job.wait_for_end(2 * JOB_SECONDS) == "COMPLETED", job.said()
    told = restarts(tmp_path / "run")
    assert len(told) == 4 and job.shown()["Restarts"] == "1", told
    assert told[0].startswith("starts on node1,node2, commit ") and told[2].startswith("starts on node")
    assert told[1].startswith("preempted at step ") and told[1].endswith("; requeued")
    assert told[3] == f"completed at step {NUM_STEPS} of {NUM_STEPS}"
    assert (tmp_path / "run" / "config.yaml").exists() and (tmp_path / "run" / "commit.txt").read_text().strip()
    assert "preflight: 2 nodes are fit, and an all-reduce over 4 ranks is right" in job.said()
    assert_same(tmp_path / "run", undisturbed)


def test_a_wrong_config_fails_at_once_and_is_not_requeued(cluster: Cluster, prepared: Prepared, tmp_path: Path) -> None:
    job = submit(prepared, tmp_path, "model.num_headz=4", "parallel.tp=3")
    assert job.wait_for_end(30) == "FAILED"
    assert (job.shown()["Restarts"], job.shown()["ExitCode"]) == ("0", "2:0")
    assert "model.num_headz is unknown; did you mean model.num_heads?" in job.said()
    assert not (tmp_path / "run").exists()


def test_a_node_with_another_checkout_is_named_and_left_out(
    cluster: Cluster, prepared: Prepared, tmp_path: Path
) -> None:
    (tmp_path / "other.py").write_text("# another version\n")
    file = ROOT / "mmtrain" / "loop.py"
    cluster.run_on("node2", f"mount --bind {tmp_path}/other.py {file}")
    try:
        job = submit(prepared, tmp_path, "parallel.tp=2")
        wait_for_restart(job, 1)
        told = restarts(tmp_path / "run")
        assert told[1].startswith("bad node node2: the code of mmtrain is "), told
        assert told[2] == "the preflight failed; requeued without node2"
        assert job.shown()["ExcNodeList"] == "node2" and "node2" not in job.shown()["NodeList"]
        job.scancel()
    finally:
        cluster.run_on("node2", f"umount {file}")
