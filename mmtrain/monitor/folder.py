"""The run folder: what stands in it before the first step, who writes to it, and what it shows at the end."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmtrain.config.load import dump_config
from mmtrain.config.schema import RunConfig
from mmtrain.io.atomic import atomic_write
from mmtrain.io.console import PlainTable, print_report, print_table
from mmtrain.monitor.log import RunLog
from mmtrain.monitor.meters import Meters
from mmtrain.monitor.peaks import peak_tflops
from mmtrain.monitor.pictures import ContactSheet
from mmtrain.records import EvalReport
from mmtrain.scores.units import format_score

CONFIG = "config.yaml"
TOKENIZER = "tokenizer.model"


class RunFolder:
    """One run's folder; only the rank that `writes` touches it."""

    def __init__(self, path: Path, *, writes: bool) -> None:
        self.path, self.writes = path, writes
        self.log = RunLog(path, writes=writes)
        self.sheet: ContactSheet | None = None

    def copy_inputs(self, plan: RunConfig) -> None:
        """Put the resolved config and the tokenizer into the folder, so that it can be read without anything else."""
        if self.writes:
            # Whole or not at all: a run that is ended here must know its config when it is started again.
            atomic_write(self.path / CONFIG, dump_config(plan))
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


def _copy_tokenizer(source: Path, to: Path) -> None:
    """A file, or of another model's folder what is its tokenizer: its weights stay where they are."""
    if not source.is_dir():
        shutil.copyfile(source, to)
        return
    to.mkdir(exist_ok=True)
    for file in source.glob("*token*.json"):
        shutil.copyfile(file, to / file.name)


def scores_table(name: str, scores: Mapping[str, object]) -> PlainTable:
    """One evaluation as a table, each score in its unit."""
    table = PlainTable("score", "value", title=f"held-out scores: {name}" if name != "heldout" else "held-out scores")
    for score, value in scores.items():
        table.add_row(score, format_score(score, value))
    return table
