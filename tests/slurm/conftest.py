"""The cluster that `make test-slurm` has started around these tests; elsewhere they are skipped, and say so."""

import os
from pathlib import Path

import pytest

from tests.doors.conftest import prepared  # noqa: F401  the set and the config are those of the doors
from tests.slurm.cluster import FOLDER_VARIABLE, Cluster


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """Three idle nodes."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        pytest.skip("no emulated Slurm around this test; `make test-slurm` starts one (as root)")
    return Cluster(Path(folder))
