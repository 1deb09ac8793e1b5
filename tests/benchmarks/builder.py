"""`python -m tests.benchmarks.builder`: the shard builder against img2dataset and a plain Pillow pool, in one run.

Images of web size, made by a script, are brought to a shorter side of 256 and packed into tars of 500 by two processes.
Every builder is a program of its own, start and imports included; rounds are interleaved in a drawn order; CPU seconds
are those of the program and all its processes, the figure that other load on the machine moves least.

    python -m venv PEER && PEER/bin/pip install img2dataset==1.47.0 wandb==0.19.11 'setuptools<81'
    python -m tests.benchmarks.builder --img2dataset PEER/bin/python
"""

import argparse
import csv
import io
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.benchmarks.web_photos import write_photos

ROOT = Path(__file__).parents[2]
SIDE_PIXELS, QUALITY, SAMPLES_PER_SHARD, PROCESSES = 256, 95, 500, 2
LEAST_RATIOS = {"img2dataset": 2.8, "pillow": 1.5}  # CPU of the other over ours
LEAST_SHARE = 0.995  # of the images, that must be packed; some cuts of the made pictures do look like one another
NUM_COMPARED = 100  # images, for the signal-to-noise ratio

PILLOW_POOL = f"""
import csv, io, sys, tarfile
from multiprocessing import Pool
from PIL import Image
def small(row):
    with Image.open(row[0]) as image:
        image = image.convert("RGB")
    scale = min(1.0, {SIDE_PIXELS} / min(image.size))
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, "JPEG", quality={QUALITY})
    return out.getvalue(), row[1]
def main(table, folder):
    rows = list(csv.reader(open(table)))[1:]
    tar = None
    with Pool({PROCESSES}) as pool:
        for number, (image, caption) in enumerate(pool.imap(small, rows, 16)):
            if number % {SAMPLES_PER_SHARD} == 0:
                tar = tarfile.open(f"{{folder}}/{{number // {SAMPLES_PER_SHARD}:05d}}.tar", "w")
            for suffix, content in (("jpg", image), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{{number:08d}}.{{suffix}}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            if number % {SAMPLES_PER_SHARD} == {SAMPLES_PER_SHARD} - 1:
                tar.close()
    tar.close()
if __name__ == "__main__":
    main(*sys.argv[1:])
"""

IMG2DATASET = f"""
import sys
from img2dataset import download
if __name__ == "__main__":
    download(
        url_list=sys.argv[1], output_folder=sys.argv[2], input_format="csv", url_col="image", caption_col="caption",
        output_format="webdataset", image_size={SIDE_PIXELS}, resize_mode="keep_ratio", resize_only_if_bigger=True,
        encode_quality={QUALITY}, number_sample_per_shard={SAMPLES_PER_SHARD}, processes_count={PROCESSES},
        thread_count=8, enable_wandb=False,
    )
"""


class Run(NamedTuple):
    """What one run of a builder cost."""

    cpu_seconds: float
    wall_seconds: float


def measure(command: Sequence[str], count: int, folder: Path) -> Run:
    """Run a builder to its end and count what it wrote; RuntimeError with its words where it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "NO_ALBUMENTATIONS_UPDATE": "1"}
    start = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall_seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        written = sum(_count_images(tar) for tar in folder.glob("*.tar"))
        if process.returncode or written < LEAST_SHARE * count:
            said.seek(0)
            raise RuntimeError(f"{command[0]} wrote {written} of {count} images:\n{said.read().decode()[-3000:]}")
    return Run(usage.ru_utime + usage.ru_stime, wall_seconds)


def _count_images(path: Path) -> int:
    with tarfile.open(path) as tar:
        return sum(name.endswith(".jpg") for name in tar.getnames())


def builders(work: Path, peer: str | None) -> dict[str, Callable[[Path], list[str]]]:
    """The command of each builder, given the folder that it writes to."""
    (work / "pillow_pool.py").write_text(PILLOW_POOL)
    (work / "img2dataset_run.py").write_text(IMG2DATASET)
    table, addresses = str(work / "photos.csv"), str(work / "addresses.csv")
    ours = [sys.executable, "-m", "data_tools", "build", table, "--allow-outside-root"]
    rules = ["--resize", SIDE_PIXELS, "--samples-per-shard", SAMPLES_PER_SHARD, "--processes", PROCESSES]
    commands: dict[str, Callable[[Path], list[str]]] = {
        "mmdata": lambda out: [*ours, str(out), *map(str, rules)],
        "mmdata, near duplicates": lambda out: [*ours, str(out), *map(str, rules), "--dedup", "near"],
        "pillow": lambda out: [sys.executable, str(work / "pillow_pool.py"), table, str(out)],
    }
    if peer:
        commands["img2dataset"] = lambda out: [peer, str(work / "img2dataset_run.py"), addresses, str(out)]
    return commands


def write_tables(work: Path, photos: Sequence[Path]) -> None:
    """The same photos as paths and as addresses, which img2dataset asks for."""
    for name, prefix in (("photos.csv", ""), ("addresses.csv", "file://")):
        with open(work / name, "w", newline="") as lines:
            table = csv.writer(lines)
            table.writerow(["image", "caption"])
            table.writerows([f"{prefix}{photo}", f"photo number {n}"] for n, photo in enumerate(photos))


def decibels(folder: Path, photos: Sequence[Path]) -> float:
    """Mean peak signal-to-noise ratio of packed images against Pillow's full decoding and bicubic resizing."""
    found = []
    with tarfile.open(min(folder.glob("*.tar"))) as tar:
        names = sorted(name for name in tar.getnames() if name.endswith(".jpg"))[:NUM_COMPARED]
        for name, photo in zip(names, photos, strict=False):
            packed = Image.open(io.BytesIO(tar.extractfile(name).read())).convert("RGB")
            wanted = Image.open(photo).convert("RGB").resize(packed.size, Image.Resampling.BICUBIC)
            error = np.asarray(packed, np.float64) - np.asarray(wanted, np.float64)
            found.append(10 * np.log10(255**2 / np.mean(error**2)))
    return float(np.mean(found))


def main() -> int:
    """Print a line per builder; 1 where a ratio is below what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--img2dataset", metavar="PYTHON", help="python of an environment that has it")
    parser.add_argument("--photos", type=Path, help="folder to make the images in once and find them again")
    arguments = parser.parse_args()
    if not arguments.img2dataset:
        print("img2dataset is skipped: no --img2dataset PYTHON was given (it needs an environment of its own)")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        print(f"making {arguments.count} images", flush=True)
        photos = write_photos(arguments.photos or work / "photos", arguments.count)
        write_tables(work, photos)
        mean_kilobytes = sum(photo.stat().st_size for photo in photos) / len(photos) / 1e3
        megapixels = sum(np.prod(Image.open(photo).size) for photo in photos) / len(photos) / 1e6
        print(f"{len(photos)} JPEGs, mean {megapixels:.2f} megapixel, {mean_kilobytes:.0f} KB", flush=True)
        runs, quality = _rounds(builders(work, arguments.img2dataset), photos, work, arguments.rounds)
    return _print_table(runs, quality, len(photos))


def _rounds(
    commands: dict[str, Callable[[Path], list[str]]], photos: Sequence[Path], work: Path, num_rounds: int
) -> tuple[dict[str, list[Run]], dict[str, float]]:
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    quality, drawn = {}, random.Random(0)
    for number in range(num_rounds):
        for name in drawn.sample(list(commands), len(commands)):
            out = work / "out"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            runs[name].append(measure(commands[name](out), len(photos), out))
            quality.setdefault(name, decibels(out, photos) if number == 0 else 0.0)
            print(f"round {number + 1}: {name}: {runs[name][-1].cpu_seconds:.2f} s of CPU", flush=True)
    return runs, quality


def _print_table(runs: dict[str, list[Run]], quality: dict[str, float], count: int) -> int:
    cpu = {name: [1e3 * run.cpu_seconds / count for run in own] for name, own in runs.items()}
    wall = {name: [count / run.wall_seconds for run in own] for name, own in runs.items()}
    print(f"\n{'builder':<26}{'CPU ms/image':>22}{'images/s':>22}{'PSNR dB':>9}")
    for name in runs:
        spread = [f"{statistics.median(own):.2f} [{min(own):.2f}-{max(own):.2f}]" for own in (cpu[name], wall[name])]
        print(f"{name:<26}{spread[0]:>22}{spread[1]:>22}{quality[name]:>9.1f}")
    failed = False
    for name in LEAST_RATIOS.keys() & runs.keys():
        ratio = statistics.median(cpu[name]) / statistics.median(cpu["mmdata"])
        failed |= ratio < LEAST_RATIOS[name]
        print(f"{name} / mmdata, CPU per image: {ratio:.2f} (asked: {LEAST_RATIOS[name]})")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
