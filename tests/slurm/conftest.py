"""The cluster that `make test-slurm` has started around these tests; elsewhere they are skipped, and say so."""

import os
from pathlib import Path

import pytest

from tests.doors.conftest import Prepared, prepared  # noqa: F401  the set and the config are those of the doors
from tests.doors.launched import launch
from tests.slurm.cluster import FOLDER_VARIABLE, Cluster
from tests.slurm.runs import WORDS


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """Three idle nodes."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        pytest.skip("no emulated Slurm around this test; `make test-slurm` starts one (as root)")
    return Cluster(Path(folder))


@pytest.fixture(scope="session")
def undisturbed(prepared: Prepared) -> Path:  # noqa: F811
    """The folder of the run that the jobs do, on one process that nobody disturbs."""
    run_dir = prepared.folder / "undisturbed"
    ended = launch("python", "pretrain", ["--config", prepared.config, f"run_dir={run_dir}", *WORDS])
    assert ended.code == 0, ended.said
    return run_dir
