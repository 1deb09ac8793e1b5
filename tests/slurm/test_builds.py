"""`sbatch slurm/build_shards.sh`: a job array prepares parts, and a last job packs what one process would have."""

import re
import sys
from pathlib import Path

import pytest

from tests.doors.conftest import Prepared
from tests.doors.launched import run_program
from tests.slurm.cluster import Cluster
from tests.slurm.jobs import Job

pytestmark = pytest.mark.timeout(240)


def test_an_array_builds_the_bytes_of_one_process(cluster: Cluster, prepared: Prepared, tmp_path: Path) -> None:
    shards = prepared.folder / "set" / "train"
    alone = run_program([sys.executable, "-m", "data_tools", "build", shards, tmp_path / "alone", "--seed", 1])
    assert alone.code == 0, alone.said
    options = ("--array=0-2", "--cpus-per-task=1")
    job = Job.submit("build_shards.sh", [shards, tmp_path / "set", "--seed", 1], tmp_path, *options)
    job.wait_until(lambda: "Submitted batch job " in job.said(), 60)
    packing = Job(re.search(r"Submitted batch job (\d+)", job.said())[1], tmp_path)
    assert packing.wait_for_end(120) == "COMPLETED", job.said()
    shards_of_one = sorted((tmp_path / "alone").glob("*.tar"))
    assert shards_of_one
    for path in shards_of_one:
        assert (tmp_path / "set" / path.name).read_bytes() == path.read_bytes()
    assert "is prepared" in job.said() and "300 pairs in" in job.said()
