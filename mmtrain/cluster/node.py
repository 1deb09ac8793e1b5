"""What a node of a job has, and what it lacks of what the job wants. Needs no torch, which takes seconds to import."""

import hashlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import mmtrain

GIBIBYTE = 2**30
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,memory.used,driver_version", "--format=csv,noheader,nounits")
QUERY_SECONDS = 60.0  # a GPU that has fallen off its bus may hang the query
MEBIBYTE_PER_GIB = 1024
MAX_USED_GIB = 2.0  # of a GPU that nobody computes on: what the driver itself holds
PACKAGES = ("torch", "deepspeed", "megatron-core", "numpy", "transformers")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (its size is asked)
PROBE_BYTES = bytes(range(256)) * 4096


@dataclass(frozen=True)
class Wants:
    """What the job asks of every node."""

    gpus: int  # 0: the job computes on CPUs
    gpu_memory_gib: float  # at least, of each GPU
    folders: tuple[Path, ...]  # that the job writes into
    free_gib: float  # at least, in each folder
    shared_memory_gib: float  # at least, free in /dev/shm: readers hand images over in it


@dataclass(frozen=True)
class NodeReport:
    """What one node says of itself."""

    node: str
    faults: tuple[str, ...]  # a sentence each; none: the node is fit
    versions: dict[str, str]  # what must be the same on every node


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi lists it."""

    name: str
    total_gib: float
    used_gib: float
    driver: str


def look(node: str, wants: Wants) -> NodeReport:
    """The report of the node that this runs on."""
    gpus, faults = _ask_gpus(wants.gpus)
    faults += gpu_faults(gpus, wants)
    folders = [*wants.folders, Path(tempfile.gettempdir())]
    faults += [fault for folder in dict.fromkeys(folders) for fault in folder_faults(folder, wants.free_gib)]
    faults += folder_faults(SHARED_MEMORY, wants.shared_memory_gib)
    return NodeReport(node, tuple(faults), versions(gpus))


def gpu_faults(gpus: Sequence[Gpu], wants: Wants) -> list[str]:
    """What is wrong with the GPUs: too few of them, too small, or taken by somebody else."""
    if wants.gpus == 0:
        return []
    faults = [f"{len(gpus)} GPUs answer; wanted {wants.gpus}"] if len(gpus) < wants.gpus else []
    for number, gpu in enumerate(gpus):
        if gpu.total_gib < wants.gpu_memory_gib:
            faults.append(f"GPU {number} has {gpu.total_gib:.1f} GiB of memory; wanted {wants.gpu_memory_gib:g}")
        if gpu.used_gib > MAX_USED_GIB:
            faults.append(f"{gpu.used_gib:.1f} GiB of GPU {number} are in use before the job starts")
    return faults


def read_gpus(listed: str) -> list[Gpu]:
    """GPUs from what nvidia-smi prints for QUERY; ValueError where a line is no such answer."""
    found = []
    for line in listed.splitlines():
        name, total, used, driver = (word.strip() for word in line.split(","))
        found.append(Gpu(name, float(total) / MEBIBYTE_PER_GIB, float(used) / MEBIBYTE_PER_GIB, driver))
    return found


def folder_faults(folder: Path, free_gib: float) -> list[str]:
    """Why the job could not write `free_gib` into `folder`: it is tried with a small file."""
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        free = shutil.disk_usage(nearest).free / GIBIBYTE
        if free < free_gib:
            return [f"{folder} has {free:.2f} GiB free; wanted {free_gib:g}"]
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(PROBE_BYTES)
            file.seek(0)
            if file.read() != PROBE_BYTES:
                return [f"{folder} gives back other bytes than were written into it"]
    except OSError as fault:
        return [f"{folder} cannot be written to: {fault.strerror}"]
    return []


def versions(gpus: Sequence[Gpu]) -> dict[str, str]:
    """What the ranks must agree on, whatever copies of code and libraries their nodes have."""
    found = {name: _version_of(name) for name in PACKAGES}
    found |= {"Python": platform.python_version(), "the code of mmtrain": _hash_of_code()}
    return found | {f"GPU {part}": getattr(gpus[0], part) for part in ("name", "driver") if gpus}


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _hash_of_code() -> str:
    """Of every source file of this package: a node may run another checkout than its neighbours."""
    folder, digest = Path(mmtrain.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _ask_gpus(wanted: int) -> tuple[list[Gpu], list[str]]:
    """The GPUs, and why they could not be asked."""
    if wanted == 0:
        return [], []
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=QUERY_SECONDS)  # noqa: S603 (our own words)
        if done.returncode == 0:
            return read_gpus(done.stdout), []
        return [], [f"nvidia-smi failed: {(done.stdout + done.stderr).strip()}"]
    except FileNotFoundError:
        return [], ["there is no nvidia-smi"]
    except subprocess.TimeoutExpired:
        return [], [f"nvidia-smi did not answer within {QUERY_SECONDS:g} s"]
    except ValueError:
        return [], ["nvidia-smi lists something that is no GPU"]
