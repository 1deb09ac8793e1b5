"""The run folder: what stands in it before the first step, who writes to it, and what it shows at the end."""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmtrain.config.load import ConfigError, dump_config
from mmtrain.config.places import has_secret, with_absolute_places
from mmtrain.config.schema import RunConfig
from mmtrain.io.atomic import atomic_open, atomic_write
from mmtrain.io.console import PlainTable, print_report, print_table
from mmtrain.io.replace import RUN_FILES
from mmtrain.monitor.log import RunLog
from mmtrain.monitor.meters import Meters
from mmtrain.monitor.peaks import peak_tflops
from mmtrain.monitor.pictures import ContactSheet
from mmtrain.records import EvalReport
from mmtrain.scores.units import format_score

CONFIG = "config.yaml"
TOKENIZER = "tokenizer.model"
# Of a Hugging Face folder: what its tokenizer is read from (`data.folder_tokenizer.FILES`).
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
OWNER_ONLY = 0o600


class RunFolder:
    """One run's folder; only the rank that `writes` touches it."""

    def __init__(self, path: Path, *, writes: bool) -> None:
        self.path, self.writes = path, writes
        self.log = RunLog(path, writes=writes)
        self.sheet: ContactSheet | None = None

    def copy_inputs(self, plan: RunConfig) -> None:
        """Put the resolved config and the tokenizer into the folder, so that it can be read without anything else."""
        if self.writes:
            _write_config(self.path / CONFIG, plan)
            tokenizer = self.path / TOKENIZER
            if not (tokenizer.exists() and tokenizer.samefile(plan.data.tokenizer)):
                _copy_tokenizer(plan.data.tokenizer, tokenizer)

    def meters(
        self,
        plan: RunConfig,
        *,
        num_devices: int,
        device_name: str,
        precision: str,
        images: Sequence[np.ndarray],
        captions: Sequence[str | None],
    ) -> Meters:
        """What turns reports into rows; `images` are the held-out ones to be shown with what they retrieve."""
        self.sheet = ContactSheet(self.log, images, captions) if images else None
        return Meters(
            self.log,
            num_steps=plan.train.num_steps,
            num_devices=num_devices,
            peak_tflops=peak_tflops(device_name, precision),
            sheet=self.sheet,
        )

    def record_scores(self, step: int, report: EvalReport) -> None:
        """Log the scores of a checkpoint after `step` optimizer steps, and keep the answers behind them."""
        for name, scores in report.scores.items():
            self.log.write({"step": step, "eval": name, **scores})
        for name, rows in report.answers.items():
            self.log.keep_answers(name, rows)

    def show_results(self, report: EvalReport | None) -> None:
        """Print the table of held-out scores and where everything is."""
        if not self.writes:
            return
        for name, scores in (report.scores if report else {}).items():
            print_table(scores_table(name, scores), is_result=False)
        places = {"run folder": self.path, "TensorBoard": self.path / "tensorboard"}
        if report and report.retrieved and self.sheet:
            places["contact sheet"] = self.sheet.path
        if report and report.shown and self.sheet:
            places["answers"] = self.path / "answered.png"
        for what, where in places.items():
            print_report(f"{what + ':':<15}{where}")

    def close(self) -> None:
        """Let go of the folder's files."""
        self.log.close()


def _write_config(path: Path, plan: RunConfig) -> None:
    """The resolved config, with places that hold from any folder; for its owner alone where one of them has a secret.

    Addresses stay as they are: the run, its evaluation and fine-tuning from it read the data by them.
    """
    with atomic_open(path) as file:
        if has_secret(plan):
            os.fchmod(file.fileno(), OWNER_ONLY)
        file.write(dump_config(with_absolute_places(plan)).encode())


def refuse_linked_outputs(run_dir: Path) -> None:
    """ConfigError where what a run writes is a link in its folder: through it another file would be changed.

    Pipes and devices, which would hang it, are refused too. `checkpoints` and `tensorboard` may be links to folders
    elsewhere: only new files are made there.
    """
    odd = [name for name in RUN_FILES if _is_link_or_special(run_dir / name)]
    if odd:
        raise ConfigError(
            [
                f"{run_dir} holds links or special files where a run writes ({', '.join(odd)}); replace them by plain "
                "files and folders"
            ]
        )


def _is_link_or_special(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def copy_config_and_tokenizer(source: Path, run_dir: Path) -> None:
    """Put those of another run into `run_dir`, where it has none; the config stays as private as it was."""
    config, own = source / CONFIG, run_dir / CONFIG
    if config.exists() and not own.exists():
        with atomic_open(own) as file:
            os.fchmod(file.fileno(), config.stat().st_mode & 0o777)
            file.write(config.read_bytes())
    if (source / TOKENIZER).exists() and not (run_dir / TOKENIZER).exists():
        _copy_tokenizer(source / TOKENIZER, run_dir / TOKENIZER)


def _copy_tokenizer(source: Path, to: Path) -> None:
    """A file, or of another model's folder the files of its tokenizer: nothing else of it, such as a `token.json`."""
    if not source.is_dir():
        atomic_write(to, source.read_bytes())
        return
    to.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            atomic_write(to / name, (source / name).read_bytes())


def scores_table(name: str, scores: Mapping[str, object]) -> PlainTable:
    """One evaluation as a table, each score in its unit."""
    table = PlainTable("score", "value", title=f"held-out scores: {name}" if name != "heldout" else "held-out scores")
    for score, value in scores.items():
        table.add_row(score, format_score(score, value))
    return table
