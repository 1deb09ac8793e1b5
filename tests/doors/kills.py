"""A run that is killed again and again, at moments that are found by looking at its folder, and started again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.doors.held_run import HOLD_FILE, RENAMED, WRITING
from tests.doors.launched import LIMIT_SECONDS, ROOT, environment
from tests.helpers import free_port

NUM_RANKS = 2
ALL, FIRST = "all ranks", "the first rank"
LOOK_SECONDS = 0.01
ENDING_SECONDS = 180  # that a launcher has to notice that its ranks are gone
TIMED = ("step_seconds", "samples_per_second", "tokens_per_second", "tflops_per_device", "data_wait_seconds")


@dataclass(frozen=True)
class Seen:
    """What a run folder shows at one moment."""

    logged: int  # steps with a row in the log
    named: int  # the step that `latest` names, 0 for none
    standing: int  # the newest step whose checkpoint bears its name, 0 for none
    is_writing: bool  # a checkpoint is there that has no name yet

    @property
    def phase(self) -> str:
        """Where in its life the run is."""
        if self.is_writing:
            return WRITING
        if self.standing > self.named:
            return RENAMED
        if not self.standing:
            return "before the first save"
        return "with unsaved steps lost" if self.logged > self.named else "at rest after a save"


def look(run_dir: Path) -> Seen:
    """The folder as it is now."""
    checkpoints = run_dir / "checkpoints"
    names = os.listdir(checkpoints) if checkpoints.exists() else []
    steps = [int(name[5:]) for name in names if name.startswith("step-") and name[5:].isdigit()]
    try:
        named = int((checkpoints / "latest").read_text().strip()[5:])
    except (OSError, ValueError):
        named = 0
    is_writing = any("step-" in name and name.endswith(".partial") for name in names)
    return Seen(count_rows(run_dir), named, max(steps, default=0), is_writing)


def count_rows(run_dir: Path) -> int:
    """Steps that stand in the log as whole lines."""
    try:
        lines = (run_dir / "log.jsonl").read_bytes().split(b"\n")[:-1]
    except OSError:
        return 0
    return max((json.loads(line)["step"] for line in lines if b'"eval"' not in line), default=0)


@dataclass(frozen=True)
class Kill:
    """One of them, as it is reported."""

    victims: str
    seen: Seen

    def __str__(self) -> str:
        seen = self.seen
        return f"SIGKILL of {self.victims} {seen.phase}: step {seen.logged} logged, latest {seen.named}"


class Mortal:
    """A run of two ranks under torchrun, always started by the same command."""

    def __init__(self, run_dir: Path, words: Sequence[str], door: str = "pretrain") -> None:
        self.run_dir, self.module = run_dir, f"mmtrain.{door}"
        launcher = ["torchrun", "--nproc-per-node", str(NUM_RANKS), "--master-port", str(free_port())]
        self.command = [*launcher, "-m", "tests.doors.held_run", self.module, *words, f"run_dir={run_dir}"]
        self.said, self.hold_file = run_dir.with_suffix(".said"), run_dir.with_suffix(".hold")

    def run_to_its_end(self) -> str:
        """What it said, when nobody killed it."""
        program = self._start()
        assert program.wait(LIMIT_SECONDS) == 0, self.said.read_text()
        return self.said.read_text()

    def kill_when(self, moment: Callable[[Seen], bool], victims: str, *, after_seconds: float = 0.0) -> Kill | None:
        """Start, and SIGKILL `all ranks` or the first one at the `moment`; None where the run ended before it came."""
        program = self._start()
        try:
            ranks = self._ranks_of(program)
            while not moment(look(self.run_dir)):
                if program.poll() is not None:
                    assert program.returncode == 0, self.said.read_text()
                    return None
                time.sleep(LOOK_SECONDS)
            time.sleep(after_seconds)
            for rank in ranks if victims == ALL else ranks[:1]:
                os.kill(rank, signal.SIGKILL)
            kill = Kill(victims, look(self.run_dir))
            assert program.wait(ENDING_SECONDS) != 0
            return kill
        finally:
            end(program)

    def _start(self) -> subprocess.Popen[str]:
        with self.said.open("w") as said:
            return subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=environment() | {HOLD_FILE: str(self.hold_file)},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def _ranks_of(self, program: subprocess.Popen[str]) -> list[int]:
        """The processes of the ranks, the first one first, once all are there."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            assert program.poll() is None, self.said.read_text()
            ranks = [pid for pid in children_of(program.pid) if self.module.encode() in words_of(pid)]
            if len(ranks) == NUM_RANKS:
                return ranks
            time.sleep(0.05)
        raise AssertionError("the ranks did not start in time")


@contextmanager
def held_in(phase: str, run: Mortal) -> Iterator[None]:
    """While it lasts, `run` stays in that phase of a save, which else takes milliseconds."""
    run.hold_file.parent.mkdir(parents=True, exist_ok=True)
    run.hold_file.write_text(phase)
    try:
        yield
    finally:
        run.hold_file.unlink()


def children_of(pid: int) -> list[int]:
    """The processes that `pid` has started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def words_of(pid: int) -> bytes:
    """The command line of a process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def end(program: subprocess.Popen[str]) -> None:
    """No process of it outlives the test."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()


def outcome_of(run_dir: Path) -> dict[str, Any]:
    """What must be the same to the bit: the rows of the log without times, where the data stands, the last tensors."""
    rows = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    untimed = [{name: value for name, value in row.items() if name not in TIMED} for row in rows]
    last = run_dir / "checkpoints" / (run_dir / "checkpoints" / "latest").read_text().strip()
    manifest = json.loads((last / "manifest.json").read_text())
    shards = {name: record for name, record in manifest["files"].items() if name.endswith(".distcp")}
    return {"rows": untimed, "order": manifest["stream"], "engine": manifest["engine"], "shards": shards}


def report(kills: Sequence[Kill], command: Sequence[str]) -> None:
    """Say every kill, for whoever runs the tests with -s."""
    print(f"\nstarted again each time by: {' '.join(command)}", file=sys.stderr)
    for number, kill in enumerate(kills, 1):
        print(f"  kill {number:2}: {kill}", file=sys.stderr)
