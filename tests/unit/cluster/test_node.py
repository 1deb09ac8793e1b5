"""What a node says of its GPUs, folders and versions."""

from pathlib import Path

import pytest

from mmtrain.cluster.node import Wants, folder_faults, gpu_faults, look, read_gpus, versions

LISTED = """NVIDIA H100 80GB HBM3, 81559, 4, 570.86.15
NVIDIA H100 80GB HBM3, 81559, 40960, 570.86.15
"""


def wants(gpus: int, gpu_memory_gib: float = 70.0) -> Wants:
    return Wants(gpus, gpu_memory_gib, (), 0.0, 0.0)


def test_gpus_are_read_as_nvidia_smi_lists_them() -> None:
    first, second = read_gpus(LISTED)
    assert (first.name, first.driver) == ("NVIDIA H100 80GB HBM3", "570.86.15")
    assert first.total_gib == pytest.approx(79.6, abs=0.1) and second.used_gib == 40.0


@pytest.mark.parametrize("listed", ["No devices were found", "a, b, c, d"])
def test_an_answer_that_lists_no_gpu_is_refused(listed: str) -> None:
    with pytest.raises(ValueError):
        read_gpus(listed)


def test_a_gpu_in_use_is_a_fault() -> None:
    assert gpu_faults(read_gpus(LISTED), wants(2)) == ["40.0 GiB of GPU 1 are in use before the job starts"]


def test_too_few_and_too_small_gpus_are_faults() -> None:
    found = gpu_faults(read_gpus(LISTED.splitlines()[0]), wants(8, gpu_memory_gib=100.0))
    assert found == ["1 GPUs answer; wanted 8", "GPU 0 has 79.6 GiB of memory; wanted 100"]


def test_a_job_on_cpus_wants_no_gpu() -> None:
    assert gpu_faults([], wants(0)) == []


def test_a_folder_that_is_not_there_yet_is_judged_by_the_nearest_above_it(tmp_path: Path) -> None:
    assert folder_faults(tmp_path / "run" / "of" / "today", 0.001) == []
    assert not list(tmp_path.iterdir())


def test_too_little_space_is_a_fault(tmp_path: Path) -> None:
    (fault,) = folder_faults(tmp_path, 1e9)
    assert fault.startswith(f"{tmp_path} has ") and fault.endswith(" GiB free; wanted 1e+09")


def test_a_folder_that_takes_no_file_is_a_fault() -> None:
    (fault,) = folder_faults(Path("/proc/run"), 0.0)
    assert fault.startswith("/proc/run cannot be written to: ")


def test_a_node_tells_its_versions_and_every_fault(tmp_path: Path) -> None:
    report = look("here", Wants(0, 0.0, (tmp_path, Path("/proc/run")), 0.0, 1e9))
    assert len(report.faults) == 2 and "/dev/shm has " in report.faults[1]
    assert report.versions == versions([]) and report.versions["torch"].startswith("2.")
    assert {"GPU name", "GPU driver"} <= set(versions(read_gpus(LISTED)))
