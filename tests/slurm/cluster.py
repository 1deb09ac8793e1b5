"""A real Slurm with emulated nodes on this machine: slurmctld, munged and a slurmd a node, in namespaces of their own.

python -m tests.slurm.cluster run COMMAND ...   COMMAND in a private machine with a fresh cluster; its exit code
python -m tests.slurm.cluster check             whether that can be, Debian's packages installed; 1 and why, if not

Each node has its own host name, process table, /dev/shm and view of the file system. Everything lives below one
process in a process namespace, so all of it ends with that process, however it ends; the machine outside (its network,
its ports, its /etc/hosts) sees nothing of it.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "iproute2", "shellcheck")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "shellcheck", "unshare", "nsenter")
APT_SECONDS = 240
START_SECONDS = 30.0
FOLDER_VARIABLE = "MMTRAIN_TEST_CLUSTER"  # tells the command inside where its cluster lies
HEAD_ADDRESS = "127.0.0.1"
PORT = 26820
PR_SET_PDEATHSIG = 1  # from linux/prctl.h
NODE_CPUS, NODE_MEMORY_MB, NODE_GPUS = 64, 64_000, 8  # claimed, not had

SLURM_CONF = """
ClusterName=emulated
SlurmctldHost=localhost({head})
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job may start cred_expire + 1 s later (by default 121 s). It stays above KillWait + 2: what is left of the
# first run by then would end the second, which has the same job and step number.
AuthInfo=socket={folder}/munge.sock,cred_expire=8
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true
# No cgroups; process groups rather than the tree of processes, which loses `srun &` of a batch script that is gone.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
PropagateResourceLimits=NONE
AccountingStorageType=accounting_storage/none
MinJobAge=86400
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
SlurmdTimeout=10
KillWait=2
ReturnToService=2
JobRequeue=1
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=node[1-{count}] NodeHostname=localhost NodeAddr=127.0.0.[11-{last}] Port=[{first_port}-{last_port}] \
CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """The cluster whose files lie in `folder`; whoever is inside the private machine may handle it."""

    folder: Path
    num_nodes: int = 3

    @property
    def conf(self) -> Path:
        """The slurm.conf that Slurm's commands are to read."""
        return self.folder / "slurm.conf"

    def start(self) -> None:
        """Write the configuration, start the daemons and wait until every node is idle, else RuntimeError."""
        self._write_files()
        munge = ["--key-file", self.folder / "munge.key", "--socket", self.folder / "munge.sock"]
        munge += ["--pid-file", self.folder / "munged.pid", "--seed-file", self.folder / "munged.seed"]
        self._daemon("munged", ["munged", "--foreground", "--force", *munge])
        _wait("the socket of munged", (self.folder / "munge.sock").exists)
        self._daemon("slurmctld", ["slurmctld", "-D", "-c"])
        for name in self.nodes:
            self.boot(name)
        self.wait_for(*self.nodes)

    @property
    def nodes(self) -> list[str]:
        """node1, node2, ..."""
        return [f"node{number}" for number in range(1, self.num_nodes + 1)]

    def boot(self, name: str) -> None:
        """Start a node in namespaces of its own; a shell is their first process and waits for whom others left."""
        inside = (
            f"hostname {name} && mount --bind {self.folder}/hosts /etc/hosts && mount -t tmpfs tmpfs /dev/shm && "
            f"slurmd -D -N {name}; exit"
        )
        spaces = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._daemon(name, ["unshare", *spaces, "sh", "-c", inside])

    def crash(self, name: str) -> None:
        """Lose a node: every process of it dies at once."""
        os.kill(self.pid(name), signal.SIGKILL)

    def run_on(self, name: str, command: str) -> str:
        """What a shell command says on a node, as its root; CalledProcessError where it fails."""
        (first,) = Path(f"/proc/{self.pid(name)}/task/{self.pid(name)}/children").read_text().split()
        words = ["nsenter", "--target", first, "--mount", "--uts", "--ipc", "--pid", "sh", "-c", command]
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=30).stdout

    def state_of(self, name: str) -> str:
        """What Slurm says of a node: idle, allocated, down*, ..."""
        words = ["sinfo", "--noheader", "--nodes", name, "--format", "%T"]
        environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30).stdout.strip()

    def wait_for(self, *names: str) -> None:
        """Until these nodes are idle; RuntimeError where they do not become so."""
        _wait("idle nodes", lambda: all(self.state_of(name) == "idle" for name in names), self._last_words)

    def _daemon(self, name: str, command: Sequence[object]) -> None:
        words = [str(word) for word in command]
        environment = {**os.environ, "SLURM_CONF": str(self.conf), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        with (self.folder / f"{name}.out").open("ab") as said:
            process = subprocess.Popen(
                words, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
        (self.folder / f"{name}.started").write_text(str(process.pid))

    def pid(self, name: str) -> int:
        """The process under which all others of a node are."""
        return int((self.folder / f"{name}.started").read_text())

    def _write_files(self) -> None:
        (self.folder / "state").mkdir(mode=0o700)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        count = self.num_nodes
        values = {"folder": self.folder, "head": HEAD_ADDRESS, "port": PORT, "count": count, "last": 10 + count}
        values |= {"first_port": PORT + 1, "last_port": PORT + count}
        values |= {"cpus": NODE_CPUS, "memory": NODE_MEMORY_MB, "gpus": NODE_GPUS}
        self.conf.write_text(SLURM_CONF.format(**values))
        # slurmd looks for cgroups even if nothing uses them, and dies of an odd mix; v1 looks for nothing.
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        for number in range(NODE_GPUS):  # a device file is wanted, and nobody opens it
            (self.folder / f"gpu{number}").symlink_to("/dev/null")
        gres = f"NodeName=node[1-{count}] Name=gpu File={self.folder}/gpu[0-{NODE_GPUS - 1}]"
        (self.folder / "gres.conf").write_text(f"AutoDetect=off\n{gres}\n")
        hosts = {"localhost": HEAD_ADDRESS, "head": HEAD_ADDRESS}
        hosts |= {name: f"127.0.0.{11 + number}" for number, name in enumerate(self.nodes)}
        (self.folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in hosts.items()))

    def _last_words(self) -> str:
        files = sorted(self.folder.glob("*.log")) + sorted(self.folder.glob("*.out"))
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-600:]}" for path in files)


def _wait(what: str, is_so: Callable[[], bool], last_words: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the cluster did not start: no {what} within {START_SECONDS:g} s\n{last_words()}")
        time.sleep(0.1)


def why_not() -> str | None:
    """Why this machine cannot hold a cluster, None where it can; missing packages of Debian are installed."""
    if os.geteuid() != 0:
        return "namespaces for the nodes need root"
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if not all(map(shutil.which, PROGRAMS)) and (fault := _install()):
        return fault
    probe = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--mount-proc", "true"]
    tried = subprocess.run(probe, capture_output=True, text=True, timeout=30)
    return f"this machine makes no namespaces: {tried.stderr.strip()}" if tried.returncode else None


def _install() -> str | None:
    if shutil.which("apt-get") is None:
        return f"{', '.join(PROGRAMS)} are needed, and there is no apt-get to install them"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        try:
            command = ["apt-get", "--quiet", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", *words]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=APT_SECONDS)
        except subprocess.TimeoutExpired:
            return f"apt-get {words[0]} did not end within {APT_SECONDS} s"
        if done.returncode and words[0] == "install":
            return f"apt-get cannot install {' '.join(PACKAGES)}: {(done.stderr.strip() or 'no word').splitlines()[-1]}"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"{', '.join(missing)} are still missing after apt-get install" if missing else None


def run(command: Sequence[str]) -> int:
    """Exit code of `command`, run in a private machine with a fresh cluster, of which nothing outlives this process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inside = [sys.executable, "-m", "tests.slurm.cluster", "inside", folder, *command]
        return subprocess.run(["unshare", *spaces, *inside], preexec_fn=_die_with_parent).returncode


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run_inside(folder: Path, command: Sequence[str]) -> int:
    """As the first process of the private machine: start the cluster, run `command`, return its exit code."""
    # Slurm does not listen where 127.* is the only address, so there is another one.
    for words in ("hostname head", "ip link set lo up", "ip addr add 10.77.1.1/32 dev lo"):
        subprocess.run(words.split(), check=True)
    cluster = Cluster(folder)
    cluster.start()
    subprocess.run(["mount", "--bind", folder / "hosts", "/etc/hosts"], check=True)
    environment = {**os.environ, "SLURM_CONF": str(cluster.conf), FOLDER_VARIABLE: str(folder)}
    process = subprocess.Popen(command, env=environment)
    while True:  # the first process of a namespace inherits whoever lost a parent, and must wait for all of them
        pid, status = os.wait()
        if pid == process.pid:
            return os.waitstatus_to_exitcode(status)


def main(words: Sequence[str]) -> int:
    """Exit code of the command that was run; 1 with a sentence where there can be no cluster."""
    match list(words):
        case ["inside", folder, *command]:
            return run_inside(Path(folder), command)
        case ["check"] | ["run", _, *_] if fault := why_not():
            print(f"no emulated Slurm here: {fault}")
            return 1
        case ["check"]:
            return 0
        case ["run", *command] if command:
            return run(command)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
