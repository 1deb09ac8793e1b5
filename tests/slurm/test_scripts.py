"""The scripts as files: clean for shellcheck, and what they would run, said without a cluster."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.doors.conftest import Prepared
from tests.doors.launched import ROOT, environment

SCRIPTS = sorted((ROOT / "slurm").glob("*.sh"))
BATCH = ("pretrain.sh", "finetune.sh", "evaluate.sh", "build_shards.sh")


def dry_run(script: str, words: list[object], **given: str) -> subprocess.CompletedProcess:
    command = ["bash", f"slurm/{script}", "--dry-run", *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, env=environment() | given, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck here; `make test-slurm` installs it")
def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(["shellcheck", "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", BATCH)
def test_a_batch_script_can_be_read_at_one_sitting(script: str) -> None:
    assert len((ROOT / "slurm" / script).read_text().splitlines()) <= 50


def test_a_dry_run_of_a_pretraining_says_each_command_and_starts_none(prepared: Prepared, tmp_path: Path) -> None:
    words = [prepared.config, f"run_dir={tmp_path}/run", "train.global_batch_size=128"]
    done = dry_run("pretrain.sh", words)
    assert done.returncode == 0, done.stderr
    step, launcher = done.stdout.splitlines()[2:4]
    assert step.startswith("srun ") and "--kill-on-bad-exit=0" in step
    assert launcher.strip().startswith(
        "on node1: torchrun --nnodes 2 --node-rank 0 --nproc-per-node 8 --master-addr node1"
    )
    assert launcher.strip().endswith(f"-m mmtrain.pretrain --config {' '.join(map(str, words))}")
    assert "mmtrain.preflight node --node node1 --nodes node1\\,node2" in done.stdout
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_a_fine_tuning_inherits_what_it_begins_with(prepared: Prepared, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    shutil.copy(prepared.config, tmp_path / "source/config.yaml")
    words = ["configs/finetune/vqa.yaml", f"model.init_from={tmp_path}/source", f"run_dir={tmp_path}/run"]
    words.append("train.global_batch_size=256")
    done = dry_run("finetune.sh", words)
    assert done.returncode == 0, done.stderr
    assert f"-m mmtrain.finetune --config {' '.join(map(str, words))}" in done.stdout
    assert f"preflight node --node node1 --nodes node1 --folder {tmp_path}/run" in done.stdout
    done = dry_run("finetune.sh", [*words, "model.fusion_layers=0"])
    assert done.returncode == 2 and "model.fusion_layers is 0" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_dry_run_refuses_a_wrong_config(prepared: Prepared) -> None:
    done = dry_run("pretrain.sh", [prepared.config, "parallel.tp=5"])
    assert done.returncode == 2 and done.stdout == "" and "this run cannot start" in done.stderr


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"LAUNCHER": "deepspeed"}, "on node1: deepspeed --quiet --hostfile "),
        ({"CONTAINER": "apptainer", "IMAGE": "i.sif"}, "on node1: apptainer exec --nv i.sif torchrun "),
        ({"CONTAINER": "apptainer", "IMAGE": "i.sif", "MOUNTS": "/d"}, "apptainer exec --nv --bind /d i.sif torchrun "),
        ({"CONTAINER": "pyxis", "IMAGE": "i.sqsh"}, "--container-image=i.sqsh "),
        ({"CONTAINER": "pyxis", "IMAGE": "i.sqsh", "MOUNTS": "/d:/d"}, "--container-mounts=/d:/d "),
    ],
)
def test_one_variable_changes_the_launcher_or_the_container(given: dict[str, str], wanted: str) -> None:
    done = dry_run("evaluate.sh", ["runs/base"], **given)
    assert done.returncode == 0 and wanted in done.stdout, done.stdout + done.stderr


def test_a_dry_run_of_a_build_says_the_part_and_the_packing() -> None:
    done = dry_run("build_shards.sh", ["pairs.csv", "SHARDS", "--resize", 256])
    assert done.returncode == 0, done.stderr
    assert "sbatch --dependency=afterok:JOB" in done.stdout and "--merge SHARDS" in done.stdout
    assert "-m data_tools build pairs.csv SHARDS --resize 256 --part 0/8 --processes 16" in done.stdout


@pytest.mark.parametrize("script", BATCH)
def test_a_script_without_words_says_what_it_wants(script: str) -> None:
    done = dry_run(script, [])
    assert done.returncode != 0 and f"sbatch slurm/{script} " in done.stderr


@pytest.mark.parametrize("script", BATCH)
def test_slurms_copy_of_a_script_finds_the_checkout_however_much_slurm_says_of_the_job(
    script: str, tmp_path: Path
) -> None:
    # Of an array's last task, whose number is the array's, Slurm says what it knows of all tasks: longer than a pipe.
    program = tmp_path / "scontrol"
    record = f"JobId=7 ArrayTaskId=1\n   Command={ROOT}/slurm/{script} pairs.csv SHARDS\n   WorkDir={tmp_path}\n"
    (tmp_path / "records").write_text(record * 2000)
    program.write_text(f'#!/bin/sh\n[ "$*" = "show job 7" ] && cat {tmp_path}/records\n')
    program.chmod(0o755)
    given = {"PATH": f"{tmp_path}:{environment()['PATH']}", "SLURM_JOB_ID": "7"}
    copy = shutil.copy(ROOT / "slurm" / script, tmp_path / "slurm_script")
    command = ["bash", copy, "--dry-run"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment() | given, capture_output=True, text=True, timeout=60, check=False
    )
    assert f"wanted: sbatch slurm/{script} " in done.stderr, done
