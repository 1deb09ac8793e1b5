"""Hostile input: a tiny run with its export and some pictures, made once in this process; each test takes a copy."""

import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.bounds import bounds

CPU_SECONDS_PER_CASE = 60  # most take milliseconds, a run of a few steps some seconds
MAX_MEMORY_BYTES = 1 << 30  # that one case may add to what the process has; the first may import torch and more
CONFIG = """
precision: fp32
train: {num_steps: 1, global_batch_size: 8, micro_batch_size: 8, learning_rate: 1e-3, warmup_steps: 0}
model:
  hidden_size: 16
  num_heads: 2
  vision_layers: 1
  text_layers: 1
  fusion_layers: 1
  image_size: 32
  embedding_size: 8
itm: {pool_size: 4}
eval: {every: 0, num_pairs: 12, num_pictures: 0}
data: {num_workers: 0}
"""
COLORS = ("red", "green", "blue", "white")


@dataclass(frozen=True)
class Tiny:
    """A run of one step; nobody changes what lies here."""

    folder: Path
    config: Path  # without data and run_dir
    train: Path
    heldout: Path
    tokenizer: Path
    run_dir: Path
    export: Path
    pictures: Path  # 0.jpg ... 3.jpg, of one colour each

    @property
    def words(self) -> list[str]:
        """Arguments of `mmtrain pretrain`, all but run_dir."""
        places = {"train": self.train, "heldout": self.heldout, "tokenizer": self.tokenizer}
        return ["--config", str(self.config), *(f"data.{name}={place}" for name, place in places.items())]


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A case that takes too much CPU time or memory fails, whatever it ends in."""
    with bounds(CPU_SECONDS_PER_CASE, MAX_MEMORY_BYTES):
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Made by the commands themselves, in about 5 seconds."""
    from data_tools.cli import main as mmdata
    from mmtrain.cli import main as mmtrain

    folder = tmp_path_factory.mktemp("tiny")
    data = folder / "set"
    made = Tiny(
        folder,
        folder / "run.yaml",
        data / "train",
        data / "heldout",
        data / "tokenizer.model",
        folder / "run",
        folder / "run/export",
        folder / "pictures",
    )
    sizes = ["--num-train", "24", "--num-heldout", "12", "--image-size", "32", "--seed", "3"]
    made.config.write_text(CONFIG)
    made.pictures.mkdir()
    for number, color in enumerate(COLORS):
        Image.new("RGB", (90, 64), color).save(made.pictures / f"{number}.jpg")
    with _process_as_before():
        assert mmdata(["synth", str(data), *sizes, "--samples-per-shard", "12", "--processes", "1"]) == 0
        assert mmdata(["tokenizer", str(made.train), "--out", str(made.tokenizer), "--vocab-size", "300"]) == 0
        assert mmtrain(["pretrain", *made.words, f"run_dir={made.run_dir}"]) == 0
        assert mmtrain(["export", str(made.run_dir)]) == 0
    return made


@pytest.fixture
def tiny_run(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the run folder, without the export, to be damaged."""
    return shutil.copytree(tiny.run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("export"))


@pytest.fixture
def tiny_export(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the export, to be damaged."""
    return shutil.copytree(tiny.export, tmp_path / "export")


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ended]]:
    """`command("mmtrain", "generate", ...)` in this process; exceptions that are no exit are errors of the test."""

    def run(program: str, *words: object) -> Ended:
        from data_tools.cli import main as mmdata
        from mmtrain.cli import main as mmtrain

        main = {"mmtrain": mmtrain, "mmdata": mmdata}[program]
        capsys.readouterr()
        with _process_as_before():
            try:
                code = main([str(word) for word in words])
            except SystemExit as end:
                code = end.code
        said = capsys.readouterr()
        assert "Traceback" not in said.err, said.err
        return Ended(int(code or 0), said.out, said.err)

    yield run


@contextmanager
def _process_as_before() -> Iterator[None]:
    """Puts back what a command changes for its process: environment, signal handlers, loggers."""
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    logger = logging.getLogger("mmtrain")
    before, propagates, level = logger.handlers, logger.propagate, logger.level
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        yield
    finally:
        if torch.distributed.is_initialized():  # a run that was refused amid its work
            from mmtrain.parallel.groups import stop

            stop()
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        logger.handlers, logger.propagate = before, propagates
        logger.setLevel(level)


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk, which many small builds would do most of the time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def pairs(tmp_path: Path, no_fsync: None) -> Path:
    """A table of five pairs, in/t.csv."""
    (tmp_path / "in").mkdir()
    for number in range(5):
        Image.new("RGB", (24, 16), (number * 40, 80, 160)).save(tmp_path / f"in/{number}.png")
    lines = [f"{number}.png,a card number {number}" for number in range(5)]
    (tmp_path / "in/t.csv").write_text("\n".join(["image,caption", *lines, ""]))
    return tmp_path / "in/t.csv"
