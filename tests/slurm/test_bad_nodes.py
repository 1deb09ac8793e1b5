"""Planted bad nodes: each is named by the pre-flight, and the job comes back without it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doors.conftest import Prepared
from tests.slurm.cluster import Cluster
from tests.slurm.jobs import restarts
from tests.slurm.runs import DP_TP, submit, wait_for_restart

pytestmark = [pytest.mark.timeout(400), pytest.mark.long]
Plant = Callable[[Cluster, Path], tuple[str, dict[str, str], str]]  # how to undo it, the site's variables, the reason


def no_disk(cluster: Cluster, folder: Path) -> tuple[str, dict[str, str], str]:
    """A temporary folder of one MiB."""
    scratch = folder / "scratch"
    scratch.mkdir()
    cluster.run_on("node2", f"mount -t tmpfs -o size=1m tmpfs {scratch}")
    return f"umount {scratch}", {"TMPDIR": str(scratch)}, f"{scratch} has 0.00 GiB free; wanted 0.1"


def unreachable(cluster: Cluster, folder: Path) -> tuple[str, dict[str, str], str]:
    """The name of the first node leads to an address where nobody is."""
    (folder / "hosts").write_text("127.0.0.1 localhost\n127.0.0.12 node2\n198.51.100.1 node1\n")
    cluster.run_on("node2", f"mount --bind {folder}/hosts /etc/hosts")
    return "umount /etc/hosts", {"PATIENCE_SECONDS": "5"}, "it did not reach node1:"


def little_shared_memory(cluster: Cluster, folder: Path) -> tuple[str, dict[str, str], str]:
    """A /dev/shm as containers have it."""
    cluster.run_on("node2", "mount -o remount,size=64m /dev/shm")
    return "mount -o remount,size=50% /dev/shm", {}, "/dev/shm has 0.06 GiB free; wanted 0.1"


@pytest.mark.parametrize("plant", [no_disk, unreachable, little_shared_memory], ids=lambda plant: plant.__name__)
def test_a_bad_node_is_named_with_its_fault_and_left_out(
    plant: Plant, cluster: Cluster, prepared: Prepared, tmp_path: Path
) -> None:
    undo, given, reason = plant(cluster, tmp_path)
    try:
        job = submit(prepared, tmp_path, *DP_TP, **given)
        wait_for_restart(job, 1)
        told = restarts(tmp_path / "run")
        assert told[1].startswith(f"bad node node2: {reason}"), told
        assert told[2] == "the preflight failed; requeued without node2"
        assert job.shown()["ExcNodeList"] == "node2" and job.shown()["NodeList"] == "node[1,3]"
        job.scancel()
    finally:
        cluster.run_on("node2", undo)
